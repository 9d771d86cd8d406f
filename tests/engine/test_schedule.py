"""In which order keys are begun."""

import pytest

from jitwarm.engine.plan import PlannedKernel, PlannedKey
from jitwarm.engine.schedule import ExpectedSeconds, first_of_each_first, longest_first


def items(backend, kernel, *texts):
    planned = PlannedKernel(kernel, backend, "dist 1.0")
    return [(planned, PlannedKey(text, text, text)) for text in texts]


ROPE = items("triton", "mine:rope", "r1", "r2", "r3")
GEMM = items("tilelang", "mine:gemm", "g1")
NORM = items("triton", "mine:norm", "n1", "n2")


def texts(ordered):
    return [key.text for _, key in ordered]


def test_with_a_budget_each_kernel_has_its_first_key_before_any_has_its_second():
    assert texts(first_of_each_first([*ROPE, *GEMM, *NORM])) == ["r1", "g1", "n1", "r2", "n2", "r3"]


@pytest.mark.parametrize(
    ("timings", "expected"),
    [
        ([], ["g1", "r1", "r2", "r3"]),  # as the backends usually do
        ([("mine:rope", "r2", 9.0)], ["r1", "r2", "r3", "g1"]),  # as this kernel's other keys did
        ([("mine:rope", "r2", 9.0), ("mine:rope", "r1", 7.0), ("mine:rope", "r3", 1.0)], ["r2", "r1", "g1", "r3"]),
        ([("another:gemm", "g1", 0.1)], ["g1", "r1", "r2", "r3"]),
    ],
)
def test_without_one_what_took_longest_comes_first(timings, expected):
    seconds = ExpectedSeconds(timings, {"triton": 0.5, "tilelang": 5.0})
    assert texts(longest_first([*ROPE, *GEMM], seconds)) == expected


def test_what_is_expected_to_take_as_long_keeps_its_order():
    assert texts(longest_first([*NORM, *ROPE], ExpectedSeconds([], {}))) == ["n1", "n2", "r1", "r2", "r3"]
