"""Where to cut a span so that a test is settled in each part."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from jitwarm.tracing.periodic import Periodic
from jitwarm.tracing.spans import Span


def first(span: Span, holds: Callable[[int], bool]) -> int:
    """The first position of the span's interval at which a condition holds that, once true, stays true; `hi + 1` for none."""
    low, high = span.lo, span.hi + 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def cut(span: Span, cuts: Sequence[int]) -> list[Span]:
    """The parts of a span between ascending cut positions."""
    edges = [span.lo, *(min(max(edge, span.lo), span.hi + 1) for edge in cuts), span.hi + 1]
    parts = (span.clip(a, b - 1) for a, b in pairwise(edges) if a < b)
    return [part for part in parts if part is not None]


def zone(periodic: Periodic, c: Any) -> list[int]:
    """The positions between which a rising periodic form has values on both sides of `c`, or equal to it."""
    rise, low, high = periodic.rise, min(periodic.values), max(periodic.values)
    if rise < 0:
        rise, low, high, c = -rise, -high, -low, -c
    if isinstance(c, int):
        first, last = -((high - c) // rise), (c - low) // rise
    else:
        first, last = math.floor((c - high) / rise) - 1, math.ceil((c - low) / rise) + 1
    return [first * periodic.period, (last + 1) * periodic.period]
