"""What cannot be traced is told where it stands, why, and what to write instead; and what newly can be is exact."""

import functools
import heapq
import pickle
from dataclasses import dataclass

import pytest
from idioms import Key

from jitwarm import Choices, IntRange, JitKernel, encode_key, trace, trace_dispatch
from jitwarm.errors import InvalidKernelError, KeySpaceTooLargeError, TracingError
from jitwarm.tracing.source import UntraceableError

WIDE = IntRange(1, 10**8)
COUNT = 0


def line_of(function, offset=0):
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


def exactly(dispatch, **inputs):
    """The trace, after a comparison with a call at each value of the one input; every region was followed."""
    ((name, values),) = inputs.items()
    found = trace(dispatch, **inputs)
    assert {encode_key(key) for key in found.keys} == {encode_key(dispatch(**{name: value})) for value in values}
    assert not [note for note in found.notes if "every" in note]
    return found


# --- never: an error where the class is defined, or at the first trace -------------------------------------------------


def writes_global(*, m):
    global COUNT  # noqa: PLW0603 - the slip under test
    COUNT += 1
    return Key(m)


def yields(*, m):
    yield Key(m)


async def waits(*, m):
    return Key(m)


def make_counter():
    n = 0

    def counts(*, m):
        def inner():
            nonlocal n
            n += 1

        inner()
        return Key(n)

    return counts


HOPELESS = [
    (writes_global, "writes the global name 'COUNT'", "    COUNT += 1\n    ^^^^^", 2, "only read it here"),
    (yields, "is a generator", "    yield Key(m)\n    ^^^^^^^^^^^^", 1, "one key per call"),
    (waits, "is `async`", "    async def waits(*, m):\n    ^^^^^", 0, "write `def`"),
    (make_counter(), "writes the nonlocal name 'n'", "    n += 1\n    ^", 3, "only read it here"),
]


@pytest.mark.parametrize(("dispatch", "reason", "excerpt", "offset", "hint"), HOPELESS)
def test_what_no_tracing_can_honour_is_told_at_the_first_trace(dispatch, reason, excerpt, offset, hint):
    with pytest.raises(TracingError, match=reason) as caught:
        trace_dispatch(dispatch, m=Choices(1, 2))
    assert caught.value.message.endswith(excerpt)
    assert caught.value.where == line_of(dispatch, offset)
    assert hint in caught.value.hint


@pytest.mark.parametrize(("dispatch", "reason", "excerpt", "offset", "hint"), HOPELESS)
def test_and_at_the_class_definition(dispatch, reason, excerpt, offset, hint):
    def define(**options):
        class Hopeless(JitKernel, **options):
            @dataclass(frozen=True)
            class CompileKey:
                m: int

            dispatch = staticmethod(globals()["_UNDER_TEST"])

            def get_warmup_keys(self, config):
                return []

            def compile(self, key):
                pass

    globals()["_UNDER_TEST"] = dispatch
    with pytest.raises(InvalidKernelError, match=reason) as caught:
        define()
    assert caught.value.message.endswith(excerpt)
    assert caught.value.where == line_of(dispatch, offset)
    define(trace=False)


def test_a_parameter_at_fault_is_pointed_at():
    with pytest.raises(InvalidKernelError, match="parameter 'size' is positional-only") as caught:

        class Positional(JitKernel):
            @dataclass(frozen=True)
            class CompileKey:
                m: int

            def dispatch(self, size, /):
                return self.CompileKey(size)

            def get_warmup_keys(self, config):
                return []

            def compile(self, key):
                pass

    assert caught.value.message.endswith("def dispatch(self, size, /):\n                       ^^^^")


def test_a_function_that_only_reads_globals_and_keeps_state_of_its_own_is_no_fault():
    def dispatch(*, m):
        total = 0

        def add(n):
            nonlocal total
            total += n

        add(m // 500)
        return Key(total)

    assert len(trace_dispatch(dispatch, m=IntRange(1, 1001))) == 3


# --- followed nowhere: every point is called, and the notes say why ----------------------------------------------------


def tries(*, m):
    try:
        return Key({1: 2}[m])
    except KeyError:
        return Key("other")


def test_the_note_gives_place_reason_and_rewrite():
    found = trace(tries, m=IntRange(1, 100))
    assert len(found.keys) == 2
    (note,) = (note for note in found.notes if note.startswith("every point was evaluated"))
    assert f"{line_of(tries, 1)}: a `try` block cannot be followed" in note
    assert "test the condition beforehand with `if`" in note


def test_past_max_points_the_error_gives_reason_caret_rewrite_and_how_to_bound_the_input():
    with pytest.raises(KeySpaceTooLargeError, match="a `try` block cannot be followed symbolically") as caught:
        trace(tries, m=WIDE)
    assert caught.value.message.endswith("\n    try:\n    ^^^^")
    assert caught.value.where == line_of(tries, 1)
    assert "with `if`" in caught.value.hint
    assert "'m' with 99,999,999 values" in caught.value.hint


def opens(n):
    with memoryview(b""):
        return n % 3


def test_a_helper_that_is_called_with_plain_values_is_named_with_its_reason():
    found = trace(lambda *, m: Key(opens(min(m, 90))), m=IntRange(1, 5000))
    assert f"opens was called with plain values: {line_of(opens, 1)}: a `with` block cannot be followed" in str(
        found.notes
    )


def test_an_expression_that_every_value_was_needed_for_is_named():
    def hashes(*, m):
        return Key(hash(m) % 2)

    notes = trace(hashes, m=IntRange(1, 9000), k=1, when=lambda m, k: m != 17 + k).notes
    assert f"`hash(m)` ({line_of(hashes, 1)})" in str(notes)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("with open('x'): pass", "with open('x'): pass"),
        ("self.x = m", "self.x"),
        ("x = locals()", "locals()"),
        ("x = m[1:2, 3]", "1:2, 3"),
        ("for d[0] in (1,): pass", "d[0]"),
        ("x = [0 for y in (m if 0 < m + 1 in (1,) else 2)]", "m + 1"),
    ],
)
def test_each_refusal_points_at_its_own_expression(tmp_path, monkeypatch, body, shown):
    (tmp_path / "refused_module.py").write_text(f"def helper(self, m, d):\n    {body}\n    return m\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "refused_module", raising=False)
    helper = __import__("refused_module").helper
    from jitwarm.tracing.lift import Lifted

    for _ in range(2):  # a refusal is kept, and told again
        with pytest.raises(UntraceableError) as caught:
            Lifted({}).lift(helper)
        first, line, caret = caught.value.message.splitlines()
        assert first.endswith("cannot be followed symbolically")
        assert "".join(c for c, mark in zip(line, caret, strict=False) if mark == "^") == shown
        assert caught.value.where.endswith("refused_module.py:2")
        assert caught.value.hint
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# --- followed ----------------------------------------------------------------------------------------------------------


def test_is_and_in_may_stand_in_a_chain_whose_middle_is_evaluated_once():
    def dispatch(*, m):
        steps = iter((1, 2, 3))
        once = 0 < next(steps) in (1, m), next(steps)
        several = 0 < m // 7 in (3, 5), 3 < m is not None, 1 < m // 2 not in {4} != 7
        return Key(once, (*several, sum(1 for t in (1, 2) if t < m % 3 in (2, 1))))

    exactly(dispatch, m=IntRange(1, 1001))


def test_an_element_may_be_augmented_and_its_position_is_evaluated_once():
    def dispatch(*, m):
        steps = iter((0, 1, 2))
        sizes, names = [m // 512, 2, 3], {"a": [1]}
        sizes[next(steps)] += 1
        sizes[next(steps)] *= m // 300
        sizes[m > 500] -= 1
        sizes[1:2] += [9]
        kept = names["a"]
        names["a"] += [2]
        return Key(tuple(sizes), tuple(kept))

    assert len(exactly(dispatch, m=IntRange(1, 1001)).keys) > 4


def bounded(low, high, *, m, scale=1):
    return Key(low < m * scale < high, scale)


class Owner:
    limit = 96

    def dispatch(self, factor, *, m):
        return Key(m > self.limit * factor)


@pytest.mark.parametrize(
    ("partial", "n_keys"),
    [
        (functools.partial(bounded, 5, 90), 2),
        (functools.partial(bounded, 5, high=90, scale=2), 2),
        (functools.partial(functools.partial(bounded, 5), 90, scale=3), 2),
        (functools.partial(Owner().dispatch, 2), 2),
        (functools.partial(Owner.dispatch, Owner(), factor=3), 2),
    ],
)
def test_a_partial_is_followed_with_what_it_binds(partial, n_keys):
    assert len(exactly(partial, m=IntRange(1, 1001)).keys) == n_keys


def test_an_input_goes_over_what_a_partial_binds_by_name():
    keys = trace_dispatch(functools.partial(bounded, 5, 90, scale=2), m=1, scale=Choices(3, 4))
    assert [key.b for key in keys] == [3, 4]


@functools.lru_cache(maxsize=8)
def half(n):
    return n // 2


def plus_one(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) + 1

    return wrapper


def test_caches_and_decorators_of_helpers_are_followed():
    def dispatch(*, m):
        @functools.cache
        def third(n):
            return n // 300

        @plus_one
        @functools.lru_cache(maxsize=9)
        def fifth(n):
            return n // 500

        return Key(half(m) > 77, (third(m), fifth(m)))

    exactly(dispatch, m=IntRange(1, 1001))


def test_a_cached_helper_still_refuses_what_cannot_be_hashed():
    with pytest.raises(TracingError, match="unhashable type"):
        trace_dispatch(lambda *, m: Key(half([m])), m=IntRange(1, 1001))


def test_an_import_and_a_del_inside_are_followed():
    def dispatch(*, m):
        import math
        from math import gcd as common

        sizes = {1: m, 2: 3}
        del sizes[2]
        return Key(math.ceil(m / 100) > 3, (common(m, 8), len(sizes)))

    exactly(dispatch, m=IntRange(1, 1001))


def test_a_list_that_becomes_plain_stays_the_same_list():
    """A copy in its place once lost a key: what was appended later was missing in the lifted run only."""

    def shared(*, m):
        if m < 4:
            return Key(1)
        sizes = [m // 900]
        by_name = {}
        by_name["a"] = sizes
        sizes.append(1)
        return Key(len(by_name["a"]))

    def pushed(*, m):
        if m < 4:
            return Key(1)
        sizes = [m // 900]
        heapq.heappush(sizes, 1)
        return Key(len(sizes))

    exactly(shared, m=IntRange(1, 1001))
    exactly(pushed, m=IntRange(1, 1001))


def test_a_range_may_be_gone_through_more_than_once():
    """The lifted run was wrong about it, and each of its values had to be settled by the function."""

    def dispatch(*, m):
        sizes = range(1, min(m, 9), 2)
        return Key(sum(1 for n in sizes if n < 4), (sum(n for n in sizes), len(sizes) > 2, 5 in sizes))

    assert "settled by the function" not in str(exactly(dispatch, m=IntRange(-5, 500)).notes)
