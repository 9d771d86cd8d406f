"""A site's policies: one hook, overridden for one kernel, through a whole run."""

from dataclasses import dataclass

import pytest
from kits import FourMembers, Key, Plugin

import jitwarm
from jitwarm import Outcome, Target, default_compile, default_warmup_keys, hookimpl
from jitwarm.errors import ContractError, Skipped, Unresolved

CUDA90 = Target("cuda", "90")


def built_in_workshop(name, *keys):
    return FourMembers(*keys, name=name, backend="workshop")


@pytest.fixture
def kernels():
    """Two kernels of two keys each; a policy is for the first."""
    return [built_in_workshop(name, Key(1), Key(2)) for name in ("chosen", "other")]


@pytest.fixture
def run(make_session, kernels):
    """The report of a run with policies, the last of them asked first."""

    def run(*policies):
        named = {f"policy{i}": policy for i, policy in enumerate(policies)}
        session = make_session({"site": Plugin(*kernels), **named})
        return session.run(session.plan())

    return run


def rows(report, name):
    return [(row.label, row.outcome) for row in report.kernels[f"site:{name}"].rows]


def for_chosen(**hooks):
    """A plugin whose hooks answer for the kernel `site:chosen` alone."""

    class Policy:
        @hookimpl
        def jitwarm_warmup_keys(self, kernel, kernel_id, config):
            return hooks["keys"](kernel, config) if kernel_id == "site:chosen" and "keys" in hooks else None

        @hookimpl
        def jitwarm_compile(self, kernel, kernel_id, key, target):
            return hooks["compile"](kernel, key, target) if kernel_id == "site:chosen" and "compile" in hooks else None

    return Policy()


def test_without_a_policy_every_key_is_built_by_the_kernel_itself(run, kernels):
    report = run()
    assert report.outcomes == {"compiled": 4}
    assert report.n_compiles == 4
    assert [kernel.built for kernel in kernels] == [[Key(1), Key(2)]] * 2
    assert report.is_complete(strict=True)


def test_a_policy_adds_a_key_for_one_kernel(run, kernels):
    report = run(for_chosen(keys=lambda kernel, config: [*default_warmup_keys(kernel, config), Key(3)]))
    assert kernels[0].built == [Key(1), Key(2), Key(3)]
    assert kernels[1].built == [Key(1), Key(2)]
    assert report.n_keys == 5


def test_a_policy_drops_a_key_for_one_kernel(run, kernels):
    report = run(for_chosen(keys=lambda kernel, config: default_warmup_keys(kernel, config)[1:]))
    assert rows(report, "chosen") == [("n=2", "compiled")]
    assert kernels[1].built == [Key(1), Key(2)]


def test_an_empty_list_is_an_answer(run, kernels):
    report = run(for_chosen(keys=lambda kernel, config: []))
    assert report.n_keys == 2
    assert kernels[0].built == []


def test_a_key_that_a_policy_repeats_is_built_once_and_true_is_not_one(run, kernels):
    run(for_chosen(keys=lambda kernel, config: [Key(1), Key(True), Key(1)]))
    assert [type(key.n) for key in kernels[0].built] == [int, bool]


def test_a_policy_that_answers_skipped_keeps_the_kernel_from_compiling(run, kernels):
    report = run(for_chosen(compile=lambda kernel, key, target: Outcome.SKIPPED if key.n == 2 else None))
    assert rows(report, "chosen") == [("n=1", "compiled"), ("n=2", "skipped")]
    assert kernels[0].built == [Key(1)]
    assert report.is_complete()
    assert not report.is_complete(strict=True)


def test_a_policy_that_fetched_the_artifact_answers_loaded_and_nothing_compiles(run, kernels):
    report = run(for_chosen(compile=lambda kernel, key, target: Outcome.LOADED))
    assert rows(report, "chosen") == [("n=1", "loaded"), ("n=2", "loaded")]
    assert kernels[0].built == []
    assert report.n_compiles == 2
    assert report.is_complete(strict=True)


def test_a_policy_may_do_something_more_and_then_the_default(run, kernels):
    seen = []

    def compile_key(kernel, key, target):
        seen.append((key, target))
        return default_compile(kernel, key, target)

    report = run(for_chosen(compile=compile_key))
    assert seen == [(Key(1), CUDA90), (Key(2), CUDA90)]
    assert kernels[0].built == [Key(1), Key(2)]
    assert report.outcomes == {"compiled": 4}
    assert report.policy_errors == []


def test_a_policy_that_raises_is_in_the_report_by_name_and_the_next_one_is_asked(run):
    def broken(kernel, key, target):
        raise ConnectionError("registry unreachable")

    report = run(for_chosen(compile=lambda kernel, key, target: Outcome.LOADED), for_chosen(compile=broken))
    assert rows(report, "chosen") == [("n=1", "loaded"), ("n=2", "loaded")]
    assert report.policy_errors[0] == {
        "plugin": "policy1",
        "hook": "jitwarm_compile",
        "error": "ConnectionError: registry unreachable",
    }
    assert report.is_complete()
    assert not report.is_complete(strict=True)


def test_a_policy_that_raises_while_it_yields_keys_is_reported_and_the_next_one_is_asked(run, kernels):
    def broken(kernel, config):
        yield Key(1)
        raise ConnectionError("registry unreachable")

    report = run(for_chosen(keys=broken))
    assert [error["plugin"] for error in report.policy_errors] == ["policy0"]
    assert kernels[0].built == [Key(1), Key(2)]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("boom"), "failed"),
        (Skipped("rank 1 only"), "skipped"),
        (Unresolved("needs a device"), "unresolved"),
    ],
)
def test_what_a_kernel_raises_for_one_key_is_that_keys_row_alone(run, kernels, error, outcome):
    def compile_key(key):
        if key.n == 1:
            raise error

    kernels[0].compile = compile_key
    report = run()
    assert [row.outcome for row in report.rows] == [outcome, "loaded", "compiled", "compiled"]
    assert str(error) in report.rows[0].error


def test_an_answer_that_is_no_outcome_fails_the_key_and_is_quoted(run):
    report = run(for_chosen(compile=lambda kernel, key, target: "compiled"))
    assert rows(report, "chosen") == [("n=1", "failed"), ("n=2", "failed")]
    assert "'compiled'" in report.rows[0].error


def test_a_kernel_that_cannot_list_its_keys_is_one_row_and_the_others_go_on(run, kernels):
    kernels[0].get_warmup_keys = lambda config: config.require_model()
    report = run()
    assert [(row.digest is None, row.outcome) for row in report.kernels["site:chosen"].rows] == [(True, "unresolved")]
    assert rows(report, "other") == [("n=1", "compiled"), ("n=2", "compiled")]
    assert not report.is_complete()


def test_a_key_of_another_class_than_the_kernels_is_refused_before_anything_is_compiled(run, kernels):
    @dataclass(frozen=True)
    class Foreign:
        m: int

    report = run(for_chosen(keys=lambda kernel, config: [Foreign(1)]))
    assert rows(report, "chosen")[0][1] == "failed"
    assert "Foreign" in report.rows[0].error
    assert kernels[0].built == []


def test_a_policy_may_dispatch_for_the_kernel(make_session, kernels):
    class Rounding:
        @hookimpl
        def jitwarm_dispatch(self, kernel, kernel_id, arguments):
            return kernel.dispatch(n=arguments["n"] // 2 * 2) if kernel_id == "site:chosen" else None

    registry = make_session({"site": Plugin(*kernels), "rounding": Rounding()}).registry
    for name, kernel, expected in (("chosen", kernels[0], Key(6)), ("other", kernels[1], Key(7))):
        asked = {"kernel": kernel, "kernel_id": f"site:{name}"}
        assert registry.first_answer("jitwarm_dispatch", **asked, arguments={"n": 7}) == expected
        assert registry.first_answer("jitwarm_compile_key", **asked) is Key


def test_default_compile_outside_a_hook_says_where_it_answers(kernels):
    with pytest.raises(ContractError, match="inside a jitwarm_compile hook"):
        default_compile(kernels[0], Key(1), CUDA90)


def test_a_kernel_that_no_adapter_knows_is_compiled_with_every_compiler_pinned(make_session):
    """All installed compilers are imported here: the kernel may call any of them."""
    seen = []

    class Unknown(FourMembers):
        def compile(self, key):
            seen.append(jitwarm.current_target())
            if key.n == 2:
                raise ValueError("tile does not divide")
            return Outcome.COMPILED if key.n == 3 else None

    session = make_session({"site": Plugin(Unknown(Key(1), Key(2), Key(3)))})
    report = session.run(session.plan())
    assert [row.outcome for row in report.rows] == [
        "loaded",
        "failed",
        "compiled",
    ]  # no compiler ran; it says so itself
    assert report.rows[1].error == "ValueError: tile does not divide"
    assert seen == [CUDA90] * 3


def test_what_an_unknown_kernel_raises_is_not_put_down_to_a_missing_program(make_session, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", "/nonexistent")  # TileLang finds no nvcc; this kernel never asked for it
    kernel = FourMembers(Key(1))
    kernel.compile = lambda key: [][key.n]
    session = make_session({"site": Plugin(kernel)})
    report = session.run(session.plan())
    assert "IndexError" in report.rows[0].error


def test_a_list_of_runaway_keys_is_refused_before_anything_is_compiled(run, kernels):
    report = run(for_chosen(keys=lambda kernel, config: [Key(n) for n in range(20_001)]))
    ((label, outcome),) = rows(report, "chosen")
    assert (label, outcome) == ("(keys could not be listed)", "failed")
    assert "it lists 20,001 keys" in report.kernels["site:chosen"].rows[0].error
    assert kernels[0].built == []
