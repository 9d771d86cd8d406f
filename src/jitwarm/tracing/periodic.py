"""The periodic form of an integer of one axis, closed under `+ - * // % << >> & | ^ ~` with constants.

A value is constant over runs of positions more often than not (`cdiv(m, 128)`), so the table of one period is kept as runs.
Each entry is computed by Python's own operator, also for negative operands.
"""

import math
import operator
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jitwarm.tracing.runs import MAX_RUNS, Runs

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "/": operator.truediv, "<<": operator.lshift, ">>": operator.rshift, "&": operator.and_, "|": operator.or_,
    "^": operator.xor, "**": operator.pow,
}  # fmt: skip


@dataclass(frozen=True)
class Periodic:
    """`value(i) = rise * (i // period) + table[i % period]` for positions `i` of one axis.

    Attributes:
        rise: By how much the value grows from one period to the next.
        period: Length of the table.
        starts: The residues at which the table changes its value, ascending from 0.
        values: The value from each of them on: ints; of a pure table (rise 0) also floats.
    """

    rise: int
    period: int
    starts: tuple[int, ...]
    values: tuple[Any, ...]

    def at(self, position: int) -> Any:
        """The value at any position, also beyond the axis."""
        n_periods, residue = divmod(position, self.period)
        value = self.values[bisect_right(self.starts, residue) - 1]
        return self.rise * n_periods + value if self.rise else value  # 0 + -0.0 would be 0.0

    def stretched(self, factor: int) -> "Periodic | None":
        """The same function over `factor` periods; None if the table would have too many runs."""
        if factor == 1:
            return self
        if len(self.starts) * factor > MAX_RUNS:
            return None
        starts = tuple(self.period * n + start for n in range(factor) for start in self.starts)
        values = tuple(self.rise * n + value if self.rise else value for n in range(factor) for value in self.values)
        return _merged(self.rise * factor, self.period * factor, starts, values)

    def mapped(self, factor: int, rise: int, function: Callable[[Any], Any]) -> "Periodic | None":
        """`function` of each entry over `factor` periods, rising by `rise` per new period."""
        wide = self.stretched(factor)
        return _merged(rise, wide.period, wide.starts, tuple(map(function, wide.values))) if wide else None

    def where(self, holds: Callable[[Any], bool]) -> Runs:
        """The residues at whose table entry a condition holds."""
        found: list[tuple[int, int]] = []
        for start, stop, value in zip(self.starts, (*self.starts[1:], self.period), self.values, strict=True):
            if not holds(value):
                continue
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
        return tuple(found)

    @property
    def direction(self) -> int | None:
        """+1, -1, or None where neither holds."""
        values = (*self.values, self.values[0] + self.rise)
        if all(map(operator.le, values, values[1:])):
            return 1
        return -1 if all(map(operator.ge, values, values[1:])) else None


def line(start: int, step: int) -> Periodic:
    """`start + step * i`."""
    return Periodic(step, 1, (0,), (start,))


def of_pair(name: str, a: Periodic, b: Periodic) -> Periodic | None:
    """`a <name> b`; None where the result has no such form."""
    if name not in ("+", "-") and (a.rise or b.rise):
        return None
    period = math.lcm(a.period, b.period)
    wide_a, wide_b = a.stretched(period // a.period), b.stretched(period // b.period)
    if wide_a is None or wide_b is None:
        return None
    function = OPERATORS[name]
    starts = tuple(sorted({*wide_a.starts, *wide_b.starts}))
    values = tuple(map(function, _sampled(wide_a, starts), _sampled(wide_b, starts)))
    rise = function(wide_a.rise, wide_b.rise) if name in ("+", "-") else 0
    return _merged(rise, period, starts, values)


def of_constant(name: str, a: Periodic, c: int) -> Periodic | None:  # noqa: PLR0911 - one return per operator
    """`a <name> c`; None where the result has no such form."""
    if a.rise == 0:
        return a.mapped(1, 0, lambda v: OPERATORS[name](v, c))
    if name == "<<":
        return of_constant("*", a, 1 << c)
    if name == ">>":
        return of_constant("//", a, 1 << c)
    if name in ("+", "-"):
        return a.mapped(1, a.rise, lambda v: OPERATORS[name](v, c))
    if name == "*":
        return a.mapped(1, a.rise * c, lambda v: v * c)
    if name in ("//", "%"):
        factor = abs(c) // math.gcd(a.rise, c)
        rise = a.rise * factor // c if name == "//" else 0
        return a.mapped(factor, rise, lambda v: OPERATORS[name](v, c))
    if name in ("&", "|", "^"):
        return _of_bits(name, a, c)
    return None


def of_reflected(name: str, c: int, b: Periodic) -> Periodic | None:
    """`c <name> b`; None where the result has no such form."""
    if name in ("+", "*", "&", "|", "^"):
        return of_constant(name, b, c)
    if name == "-":
        return b.mapped(1, -b.rise, lambda v: c - v)
    return b.mapped(1, 0, lambda v: OPERATORS[name](c, v)) if b.rise == 0 else None


def _of_bits(name: str, a: Periodic, c: int) -> Periodic | None:
    """Bit operations with a constant change only the bits below its highest: those depend on the value modulo a power of 2."""
    modulus = 1 << (c if c >= 0 else ~c).bit_length()
    factor = modulus // math.gcd(a.rise, modulus)
    # v & c drops the higher bits for c >= 0, v | c sets them for c < 0; in the other cases they stay, or are all inverted
    keeps_high_bits = not ((name == "&" and c >= 0) or (name == "|" and c < 0))
    sign = -1 if name == "^" and c < 0 else 1
    rise = sign * a.rise * factor if keeps_high_bits else 0
    return a.mapped(factor, rise, lambda v: OPERATORS[name](v, c))


def _sampled(periodic: Periodic, starts: tuple[int, ...]) -> list[Any]:
    """The values at ascending positions that include all of its own starts."""
    found = []
    own = -1
    for start in starts:
        if own + 1 < len(periodic.starts) and periodic.starts[own + 1] == start:
            own += 1
        found.append(periodic.values[own])
    return found


def _merged(rise: int, period: int, starts: tuple[int, ...], values: tuple[Any, ...]) -> Periodic:
    """With one run where neighbours are equal. Only ints are merged: 0.0 and -0.0 are equal, but not the same."""
    kept = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1] or type(values[i]) is not int)]
    if len(kept) < len(values):
        starts, values = tuple(starts[i] for i in kept), tuple(values[i] for i in kept)
    return Periodic(rise, period, starts, values)
