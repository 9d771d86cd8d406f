"""Nodes: numbers as functions of a point, with what is proven about them.

A node's `value` composes the very operations that Python would perform, so at a single point it is the concrete value. What
else is known is used to decide tests for many points at once:

- a direction per axis (+1 never decreases, -1 never increases), so that a range is two corners and a threshold a bisection;
- for an integer of one axis its periodic form, `rise * (i // period) + table[i % period]`, closed under
  `+ - * // % << >> & | ^ ~` with constants, from which residues are read;
- bounds by interval arithmetic over the operands, where there is no direction.

Nodes know nothing of boxes and runs; they are shared by all of them.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jitwarm.tracing import periodic
from jitwarm.tracing.periodic import OPERATORS, Periodic
from jitwarm.tracing.spans import Span

Point = Sequence[int]
Box = Sequence[Span]
INFINITY = float("inf")


@dataclass(eq=False)
class Node:
    """A number that depends on some axes.

    Attributes:
        axes: The axes that it depends on.
        value: The value at a point.
        directions: Per axis +1 or -1 where that is proven; an axis that is missing has no proven direction.
        is_int: Whether every value is an int; else every value is a float.
        periodic: The periodic form, of an int of one axis.
        interval: Bounds over a box from the operands' bounds.
        operands: The nodes that it was made from.
    """

    axes: frozenset[int]
    value: Callable[[Point], Any]
    directions: Mapping[int, int]
    is_int: bool
    periodic: Periodic | None = None
    interval: Callable[[Box], tuple[Any, Any]] | None = None
    operands: tuple["Node", ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.periodic is not None and (direction := self.periodic.direction) is not None:
            (axis,) = self.axes
            self.directions = {axis: direction}

    @property
    def axis(self) -> int | None:
        """The only axis, or None."""
        return next(iter(self.axes)) if len(self.axes) == 1 else None

    def bounds(self, box: Box) -> tuple[Any, Any]:
        """A lower and an upper bound over a box; exact where every direction is proven."""
        if len(self.directions) == len(self.axes):
            low = [span.lo for span in box]
            high = list(low)
            for axis, direction in self.directions.items():
                low[axis], high[axis] = (box[axis].lo, box[axis].hi) if direction > 0 else (box[axis].hi, box[axis].lo)
            return self.value(low), self.value(high)
        if self.interval is not None:
            return self.interval(box)
        return -INFINITY, INFINITY


Operand = Any  # a Node, or a Python int or float


def leaf(axis: int, values: range) -> Node:
    """The values of one input."""
    start, step = values.start, values.step
    return Node(frozenset({axis}), lambda p: start + step * p[axis], {axis: 1}, True, periodic.line(start, step))


def binary(name: str, a: Operand, b: Operand, whole: Box) -> Node | None:
    """`a <name> b`, or None where nothing useful would be known of the result.

    Args:
        name: One of `+ - * // % / << >> & | ^ **`.
        a: A node or a number; at least one operand is a node.
        b: Likewise. The caller has made sure that the operation cannot raise.
        whole: The whole domain, for questions of sign that must hold everywhere.
    """
    function = OPERATORS[name]
    value = _composed(function, a, b)
    axes = _axes(a) | _axes(b)
    is_int = _is_int(a) and _is_int(b) and name != "/"
    directions = _DIRECTIONS[name](a, b, whole) if name in _DIRECTIONS else {}
    interval = None
    if name in _INTERVALS:
        combine = _INTERVALS[name]
        interval = lambda box: combine(bounds_of(a, box), bounds_of(b, box))  # noqa: E731 - a closure over both operands
    form = _periodic(name, a, b) if len(axes) == 1 and (is_int or _are_tables(a, b)) else None
    return Node(axes, value, directions, is_int, form, interval, tuple(x for x in (a, b) if isinstance(x, Node)))


def unary(function: Callable[[Any], Any], a: Node, *, direction: int, is_int: bool) -> Node:
    """A function of one node that never decreases (`direction=1`), or never increases (-1)."""
    directions = {axis: direction * d for axis, d in a.directions.items()}
    low, high = (0, 1) if direction > 0 else (1, 0)

    def interval(box: Box) -> tuple[Any, Any]:
        bounds = a.bounds(box)
        if math.inf in bounds or -math.inf in bounds:
            return -INFINITY, INFINITY
        return function(bounds[low]), function(bounds[high])

    table = a.periodic.mapped(1, 0, function) if a.periodic is not None and not a.periodic.rise else None
    return Node(a.axes, lambda p: function(a.value(p)), directions, is_int, table, interval, (a,))


def tabulated(function: Callable[[int], int], a: Node) -> Node | None:
    """Any function of a node that is a pure table; None for other nodes."""
    if a.periodic is None or a.periodic.rise:
        return None
    return Node(a.axes, lambda p: function(a.value(p)), {}, True, a.periodic.mapped(1, 0, function), None, (a,))


def _are_tables(a: Operand, b: Operand) -> bool:
    """Whether both are numbers or pure tables: then any result is a pure table, of floats, too."""
    return all(not isinstance(x, Node) or (x.periodic is not None and not x.periodic.rise) for x in (a, b))


def bounds_of(a: Operand, box: Box) -> tuple[Any, Any]:
    """Bounds of a node or a number."""
    return a.bounds(box) if isinstance(a, Node) else (a, a)


def _axes(a: Operand) -> frozenset[int]:
    return a.axes if isinstance(a, Node) else frozenset()


def _is_int(a: Operand) -> bool:
    return a.is_int if isinstance(a, Node) else isinstance(a, int)


def _composed(function: Callable[[Any, Any], Any], a: Operand, b: Operand) -> Callable[[Point], Any]:
    if not isinstance(b, Node):
        f = a.value
        return lambda p: function(f(p), b)
    if not isinstance(a, Node):
        g = b.value
        return lambda p: function(a, g(p))
    f, g = a.value, b.value
    return lambda p: function(f(p), g(p))


# --- directions --------------------------------------------------------------------------------------------------------


def _combined(
    a: Mapping[int, int], b: Mapping[int, int], axes_a: frozenset[int], axes_b: frozenset[int]
) -> dict[int, int]:
    """Directions of a sum of two terms: where both depend on an axis, they must agree."""
    found = {}
    for axis in axes_a | axes_b:
        da = a.get(axis) if axis in axes_a else 0
        db = b.get(axis) if axis in axes_b else 0
        if da is None or db is None or da * db < 0:
            continue
        found[axis] = da or db
    return found


def _of(a: Operand) -> Mapping[int, int]:
    return a.directions if isinstance(a, Node) else {}


def _flipped(directions: Mapping[int, int]) -> dict[int, int]:
    return {axis: -d for axis, d in directions.items()}


def _scaled(directions: Mapping[int, int], sign: Any) -> dict[int, int]:
    return dict(directions) if sign >= 0 else _flipped(directions)


def _add(a: Operand, b: Operand, _: Box) -> dict[int, int]:
    return _combined(_of(a), _of(b), _axes(a), _axes(b))


def _sub(a: Operand, b: Operand, _: Box) -> dict[int, int]:
    return _combined(_of(a), _flipped(_of(b)), _axes(a), _axes(b))


def _mul(a: Operand, b: Operand, whole: Box) -> dict[int, int]:
    if not isinstance(b, Node):
        return _scaled(_of(a), b)
    if not isinstance(a, Node):
        return _scaled(_of(b), a)
    if a.bounds(whole)[0] >= 0 and b.bounds(whole)[0] >= 0:
        return _combined(a.directions, b.directions, a.axes, b.axes)
    return {}


def _div(a: Operand, b: Operand, whole: Box) -> dict[int, int]:
    if not isinstance(b, Node):
        return _scaled(_of(a), b)
    if b.bounds(whole)[0] > 0 and bounds_of(a, whole)[0] >= 0:
        return _combined(_of(a), _flipped(b.directions), _axes(a), b.axes)
    return {}


def _lshift(a: Operand, b: Operand, whole: Box) -> dict[int, int]:
    if not isinstance(b, Node):
        return dict(_of(a))
    total = bounds_of(a, whole)[0] >= 0 and b.bounds(whole)[0] >= 0
    return _combined(_of(a), b.directions, _axes(a), b.axes) if total else {}


def _rshift(a: Operand, b: Operand, whole: Box) -> dict[int, int]:
    if not isinstance(b, Node):
        return dict(_of(a))
    total = bounds_of(a, whole)[0] >= 0 and b.bounds(whole)[0] >= 0
    return _combined(_of(a), _flipped(b.directions), _axes(a), b.axes) if total else {}


def _pow(a: Operand, b: Operand, whole: Box) -> dict[int, int]:
    if isinstance(b, Node) and not isinstance(a, Node):
        return dict(b.directions) if a >= 1 else {}
    if isinstance(a, Node) and not isinstance(b, Node):
        return dict(a.directions) if a.bounds(whole)[0] >= 0 and b >= 0 else {}
    return {}


_DIRECTIONS: dict[str, Callable[[Operand, Operand, Box], dict[int, int]]] = {
    "+": _add, "-": _sub, "*": _mul, "//": _div, "/": _div, "<<": _lshift, ">>": _rshift, "**": _pow,
}  # fmt: skip

# --- intervals ---------------------------------------------------------------------------------------------------------

Interval = tuple[Any, Any]


def _interval_mul(a: Interval, b: Interval) -> Interval:
    if any(abs(v) == INFINITY for v in (*a, *b)):
        return -INFINITY, INFINITY
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _interval_div(divide: Callable[[Any, Any], Any]) -> Callable[[Interval, Interval], Interval]:
    def divided(a: Interval, b: Interval) -> Interval:
        if b[0] <= 0 <= b[1] or any(abs(v) == INFINITY for v in (*a, *b)):
            return -INFINITY, INFINITY
        corners = [divide(x, y) for x in a for y in b]
        return min(corners), max(corners)

    return divided


def _interval_mod(_: Interval, b: Interval) -> Interval:
    if b[0] > 0:
        return 0, b[1]
    return (b[0], 0) if b[1] < 0 else (-INFINITY, INFINITY)


def _interval_and(a: Interval, b: Interval) -> Interval:
    return (0, min(a[1], b[1])) if a[0] >= 0 and b[0] >= 0 else (-INFINITY, INFINITY)


_INTERVALS: dict[str, Callable[[Interval, Interval], Interval]] = {
    "+": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "-": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "*": _interval_mul,
    "//": _interval_div(operator.floordiv),
    "/": _interval_div(operator.truediv),
    "%": _interval_mod,
    "&": _interval_and,
}

# --- periodic forms ----------------------------------------------------------------------------------------------------


def _periodic(name: str, a: Operand, b: Operand) -> Periodic | None:
    """The periodic form of a result of one axis; None where there is none, or where a table entry divides by 0."""
    try:
        return _periodic_form(name, a, b)
    except (ArithmeticError, ValueError):
        return None  # an operation that the author guards: it never happens at the points where this is asked


def _periodic_form(name: str, a: Operand, b: Operand) -> Periodic | None:
    if isinstance(a, Node) and isinstance(b, Node):
        return periodic.of_pair(name, a.periodic, b.periodic) if a.periodic and b.periodic else None
    if isinstance(a, Node):
        return periodic.of_constant(name, a.periodic, b) if a.periodic else None
    return periodic.of_reflected(name, a, b.periodic) if b.periodic else None
