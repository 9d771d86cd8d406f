"""The plan: one ordered, de-duplicated list, made without a compiler or a file."""

import pytest
from kits import FourMembers, Key

from jitwarm import NeedsModel, Outcome, Skipped, Target, UnencodableKey, encode_key, key_digest
from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.engine.plan import PlannedKey, describe_error, make_plan, outcome_of
from jitwarm.errors import CompileError, ToolchainError

CUDA90 = Target("cuda", "90")


def registered(name, *keys):
    return RegisteredKernel(f"p:{name}", FourMembers(*keys, name=name), "p", "p 1.0", "workshop")


def planned(*kernels, notes=()):
    return make_plan(kernels, lambda kernel: (kernel.kernel.get_warmup_keys(None), notes), CUDA90)


def test_kernels_and_keys_keep_their_order():
    plan = planned(registered("b", Key(2), Key(1)), registered("a", Key(3)))
    assert [(kernel.id, [key.label for key in kernel.keys]) for kernel in plan.kernels] == [
        ("p:b", ["n=2", "n=1"]),
        ("p:a", ["n=3"]),
    ]
    assert plan.n_keys == 3
    assert plan.target == CUDA90


def test_a_repeated_key_is_planned_once_where_it_first_stood_and_true_is_not_one():
    (kernel,) = planned(registered("a", Key(1), Key(2), Key(True), Key(1), Key(1.0))).kernels
    assert [key.text for key in kernel.keys] == [encode_key(Key(n)) for n in (1, 2, True, 1.0)]


def test_a_planned_key_carries_what_names_it_elsewhere():
    (kernel,) = planned(registered("a", Key(1))).kernels
    text = encode_key(Key(1))
    assert kernel.keys == (PlannedKey(key_digest("p:a", text), text, "n=1"),)
    assert kernel.keys[0].key == Key(1)


def test_the_same_key_of_two_kernels_has_two_digests():
    plan = planned(registered("a", Key(1)), registered("b", Key(1)))
    assert len({key.digest for kernel in plan.kernels for key in kernel.keys}) == 2


def test_no_keys_is_a_plan_too():
    (kernel,) = planned(registered("a"), notes=["nothing to warm"]).kernels
    assert (kernel.keys, kernel.problem, kernel.notes) == ((), None, ("nothing to warm",))


@pytest.mark.parametrize(
    ("key", "outcome", "error"),
    [
        (Key([1]), Outcome.FAILED, "Key.n holds a list: [1]"),
        ("no key", Outcome.FAILED, "compile keys are frozen dataclasses"),
    ],
)
def test_a_key_that_is_none_fails_its_kernel_and_the_others_are_planned(key, outcome, error):
    bad, good = planned(registered("bad", Key(1), key), registered("good", Key(1))).kernels
    assert bad.keys == ()
    assert bad.problem[0] is outcome
    assert error in bad.problem[1]
    assert (len(good.keys), good.problem) == (1, None)


def test_a_kernel_that_needs_the_model_is_unresolved_with_what_to_do():
    def list_keys(kernel):
        raise NeedsModel("needs the model", "warm it inside the engine")

    (kernel,) = make_plan([registered("a")], list_keys, CUDA90).kernels
    assert kernel.problem == (Outcome.UNRESOLVED, "needs the model\n  hint: warm it inside the engine")


def test_nothing_is_compiled_and_nothing_is_asked_twice():
    kernel, asked = registered("a", Key(1)), []
    make_plan([kernel], lambda k: (asked.append(k.id) or k.kernel.keys, ()), CUDA90)
    assert asked == ["p:a"]
    assert kernel.kernel.built == []


@pytest.mark.parametrize(
    ("exc", "outcome"),
    [
        (ValueError("x"), Outcome.FAILED),
        (CompileError("x"), Outcome.FAILED),
        (UnencodableKey("x"), Outcome.FAILED),
        (ToolchainError("x"), Outcome.UNRESOLVED),
        (Skipped("x"), Outcome.SKIPPED),
    ],
)
def test_cannot_know_is_its_own_outcome_apart_from_failed(exc, outcome):
    assert outcome_of(exc) is outcome


def test_an_error_of_ours_says_what_to_do_and_another_is_named_with_its_class():
    assert (
        describe_error(CompileError("wrong arch", "rebuild", "a.py:3")) == "wrong arch\n  at: a.py:3\n  hint: rebuild"
    )
    assert describe_error(KeyError("sm_90")) == "KeyError: 'sm_90'"
