"""`trace_dispatch` against the plainest possible brute force, over random domains."""

import contextlib
import itertools

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kits import Key

from jitwarm import Choices, IntRange, encode_key, rows, trace_dispatch

values = st.sampled_from([0, 1, True, 1.0, 2, 3, 16, 17, -5])
ranges = st.builds(
    lambda start, n, step: IntRange(start, start + n, step), st.integers(-20, 20), st.integers(1, 9), st.integers(1, 4)
)
spaces = ranges | st.lists(values, min_size=1, max_size=4).map(lambda chosen: Choices(*chosen)) | values
coupled = st.lists(st.fixed_dictionaries({"c": spaces, "d": values}), min_size=1, max_size=3)


def by_branches(*, a, b, c, d):
    if a <= 0 or (c > 2 and b != d):
        return Key((a // 4, d))
    return Key(("wide", c if b > 1 else b))


def with_refusals(*, a, b, c, d):
    assert a != b
    if c == d:
        raise ValueError(c)
    return Key((a, c) if a > c else (b,))


def of_types(*, a, b, c, d):
    return Key((a, b) if type(a) is type(d) else c)


def expand(space):
    return list(space) if isinstance(space, IntRange | Choices) else [space]


def brute_force(dispatch, when, table, independent):
    """The texts of the keys, in the order in which the points first reach them."""
    found = {}
    for row in table:
        names, axes = zip(*(*row.items(), *independent.items()), strict=True)
        for point in itertools.product(*map(expand, axes)):
            inputs = dict(zip(names, point, strict=True))
            with contextlib.suppress(AssertionError, ValueError):
                if when is None or when(inputs["a"], inputs["d"]):
                    found[encode_key(dispatch(**inputs))] = None
    return list(found)


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from([by_branches, with_refusals, of_types]),
    st.none() | st.sampled_from([lambda a, d: a < d, lambda a, d: (a + d) % 2 == 0, lambda a, d: d != 16]),
    coupled,
    st.fixed_dictionaries({"a": spaces, "b": spaces}),
)
def test_keys_and_their_order_are_those_of_brute_force(dispatch, when, table, independent):
    expected = brute_force(dispatch, when, table, independent)
    assume(expected)
    found = trace_dispatch(dispatch, rows(*table), when=when, **independent)
    assert [encode_key(key) for key in found] == expected
