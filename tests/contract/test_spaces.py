"""Value spaces, and what a slip in one of them says."""

import re

import pytest

from jitwarm import Choices, IntRange, rows
from jitwarm.errors import DomainError


@pytest.mark.parametrize("bounds", [(1, 5), (0, 10, 3), (-4, 5, 2), (8, 9, 100)])
def test_an_int_range_is_half_open_like_range(bounds):
    assert list(IntRange(*bounds)) == list(range(*bounds))
    assert len(IntRange(*bounds)) == len(range(*bounds))


@pytest.mark.parametrize(
    ("bounds", "meant"),
    [
        ((1, 10, 0), range(1, 10)),
        ((1, 10, -1), range(1, 10)),
        ((10, 1, -1), range(2, 11)),
        ((9, 0, -2), range(1, 10, 2)),
    ],
)
def test_a_step_below_one_is_refused_and_the_advice_can_be_followed(bounds, meant):
    with pytest.raises(DomainError, match="step must be 1 or more") as caught:
        IntRange(*bounds)
    advised = re.search(r"IntRange\((-?\d+), (-?\d+), (-?\d+)\)", caught.value.hint)
    assert list(IntRange(*map(int, advised.groups()))) == list(meant)


@pytest.mark.parametrize("bounds", [(1, 1), (5, 5, 3)])
def test_a_range_without_a_member_is_refused(bounds):
    with pytest.raises(DomainError, match="has no member") as caught:
        IntRange(*bounds)
    assert "n + 1" in caught.value.hint


@pytest.mark.parametrize(
    ("bounds", "name"), [((1.0, 5), "start"), ((1, "5"), "stop"), ((1, 5, 1.0), "step"), ((True, 5), "start")]
)
def test_a_bound_that_is_no_int_is_refused_by_name(bounds, name):
    with pytest.raises(DomainError, match=f"{name} must be an int"):
        IntRange(*bounds)


def test_choices_keep_one_and_true_apart():
    assert [type(value) for value in Choices(1, True, 1.0)] == [int, bool, float]


def test_choices_of_nothing_are_refused():
    with pytest.raises(DomainError, match="no member"):
        Choices()


def test_rows_of_nothing_are_refused_with_what_to_return_instead():
    with pytest.raises(DomainError, match="no row") as caught:
        rows()
    assert "[]" in caught.value.hint


def test_rows_with_different_names_are_refused_by_row_and_name():
    with pytest.raises(DomainError, match="row 1 and row 0 differ in the names window"):
        rows({"head": 64}, {"head": 128, "window": 4096})


def test_rows_do_not_change_with_the_mapping_they_were_made_of():
    mapping = {"head": 64}
    made = rows(mapping)
    mapping["head"] = 128
    assert list(made) == [{"head": 64}]


def test_swapped_bounds_are_recognized():
    with pytest.raises(DomainError, match="look swapped") as caught:
        IntRange(1_000_000, 1)
    assert caught.value.hint == "write IntRange(1, 1000000, 1)"
