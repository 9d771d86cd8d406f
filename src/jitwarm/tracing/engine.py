"""The search: run the lifted dispatch on whole boxes of inputs until every box has one key.

A test that is not decided for the whole box narrows the box in place to one side, and puts the other side on the list of what
is still to do. So a run that ends has met only tests that have one answer in its box, and its key is the key of every point
there. Tests over several large axes are assumed instead (a fact), since no box has their shape; a run under facts whose key
was seen already needs no proof that its facts can hold.
"""

import operator
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from jitwarm.tracing.budget import Budget
from jitwarm.tracing.cuts import cut, first, zone
from jitwarm.tracing.lift import Site, author_site
from jitwarm.tracing.nodes import Node
from jitwarm.tracing.periodic import Periodic
from jitwarm.tracing.runs import Runs, complement
from jitwarm.tracing.spans import Span

_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "le": operator.le,
    "lt": operator.lt,
    "eq": operator.eq,
    "same": lambda a, b: repr(a) == repr(b),  # tells 0.0 from -0.0
}
_N_RANDOM = 48
_MAX_CORNER_AXES = 4
_MAX_TESTS = 20_000
_MAX_TABULATED = 64
_FEW = 8
# A lifted run costs about as much as this many plain calls of a dispatch.
_ITEM_COST = 10


class Abandon(BaseException):
    """This run cannot go on; what it covered is on the list again. No Exception, so that no handler of an author takes it."""


@dataclass(frozen=True, eq=False)
class Test:
    """A comparison of a node with a number."""

    node: Node
    relation: str
    constant: Any

    def holds(self, point: Sequence[int]) -> bool:
        """The truth at one point."""
        return _RELATIONS[self.relation](self.node.value(point), self.constant)

    def residues(self, periodic: Periodic) -> tuple[Runs, Runs]:
        """The residues of a pure table at which the test holds, and the others."""
        key = ("residues", self.relation, type(self.constant), self.constant)
        if key not in self.node.memo:
            relation = _RELATIONS[self.relation]
            matching = periodic.where(lambda value: relation(value, self.constant))
            self.node.memo[key] = matching, complement(matching, periodic.period)
        return self.node.memo[key]  # type: ignore[no-any-return]  # the memo holds several kinds of things


@dataclass(frozen=True)
class Item:
    """A box that is still to do, and what is assumed in it."""

    spans: tuple[Span, ...]
    facts: tuple[tuple[Test, bool], ...] = ()


class Engine:
    """The boxes of one domain.

    Args:
        sizes: Number of positions of each axis.
        budget: How many evaluations may be spent; shared by the caller's other engines.
    """

    def __init__(self, sizes: Sequence[int], budget: Budget) -> None:
        self.whole = tuple(Span(0, n - 1) for n in sizes)
        self.spans: list[Span] = list(self.whole)
        self.facts: list[tuple[Test, bool]] = []
        self.budget = budget
        self.enumerated: dict[int, Site | None] = {}
        self.fact_texts: dict[tuple[int, bool], str] = {}
        self._todo: list[Item] = [Item(self.whole)]
        self._n_tests = 0
        self._random = random.Random(0)  # noqa: S311 - for choosing points to try

    def items(self) -> Iterator[Item]:
        """Each item to run, its box and facts in place, until none is left."""
        while self._todo:
            item = self._todo.pop()
            self.budget.spend(_ITEM_COST + len(item.facts), None, None)
            self.spans, self.facts, self._n_tests = list(item.spans), [], 0
            if self._take_facts(item.facts):
                yield item

    @property
    def low_corner(self) -> list[int]:
        """The smallest point of the current box."""
        return [span.lo for span in self.spans]

    @property
    def is_point(self) -> bool:
        """Whether the current box is a single point."""
        return all(span.is_point for span in self.spans)

    def _take_facts(self, facts: Sequence[tuple[Test, bool]]) -> bool:
        """Keep the facts that are still open in this box. False where one of them cannot hold in it."""
        for test, truth in facts:
            try:
                known = self._known(test)
            except ArithmeticError:
                known = None  # a divisor that another fact excludes
            if known is None:
                self.facts.append((test, truth))
            elif known is not truth:
                return False
        return True

    # --- tests -------------------------------------------------------------------------------------------------------

    def truth(self, test: Test, *, enumerate_values: bool = False) -> bool:
        """Decide a test for the whole box, narrowing it if need be.

        What can neither be decided nor solved is assumed to be true, and the other assumption is to do. With
        `enumerate_values` a test of one axis is tabulated instead: for a value that reaches the key, every one counts.
        """
        self._n_tests += 1
        if self._n_tests > _MAX_TESTS:  # a loop that does not end where the facts cannot hold, say
            self.budget.spend(_MAX_TESTS // 20, test, None)
            self.halve()
        known = self._known(test)
        if known is not None:
            return known
        free = [axis for axis in test.node.axes if not self.spans[axis].is_point]
        if len(free) > 1:
            return self._assume(test)
        (axis,) = free
        if not (
            self._split_by_residue(test, axis)
            or self._split_by_direction(test, axis)
            or self._split_by_zone(test, axis)
        ):
            if self.spans[axis].count() > _MAX_TABULATED:
                self._split_by_operand(test.node, axis)
                if not enumerate_values:
                    return self._assume(test)
            self._tabulate(test, axis)
        return test.holds(self.low_corner)

    def value_of(self, node: Node) -> Any:
        """Narrow the box until a node has one value in it, and return that."""
        while True:
            low, high = self._bounds(node)
            if low == high and (node.is_int or low != 0):
                return low
            point = self.witness()
            if point is None:
                self.halve()
            value = node.value(point)
            relation = "eq" if node.is_int or value != 0 else "same"
            if self.truth(Test(node, relation, value), enumerate_values=True):
                return value

    def choose(self, axis: int) -> int:
        """Narrow one axis to its first position that is left, and return it."""
        span = self.spans[axis]
        rest = span.clip(span.lo + 1, span.hi)
        if rest is not None:
            self._push_span(axis, rest)
        self.spans[axis] = Span(span.lo, span.lo)
        return span.lo

    # --- points ------------------------------------------------------------------------------------------------------

    def likely_witness(self) -> list[int] | None:
        """A point of the box at which all facts hold, if a few tries find one."""
        if not self.facts:
            return self.low_corner
        return next((point for point in self._candidates() if self._satisfies(point)), None)

    def witness(self) -> list[int] | None:
        """A point of the box at which all facts hold; None if none was found, though there may be one.

        Raises:
            Abandon: It is proven that there is none.
        """
        point = self.likely_witness()
        free = {axis for test, _ in self.facts for axis in test.node.axes if not self.spans[axis].is_point}
        if point is not None or len(free) > 1:
            return point
        for axis in free:
            span, candidate = self.spans[axis], self.low_corner
            for position in span.members():
                self.budget.spend(1, self.facts[-1][0], axis)
                candidate[axis] = position
                if self._satisfies(candidate):
                    return candidate
        raise Abandon

    def halve(self) -> NoReturn:
        """Put the two halves of the box on the list and end this run.

        Raises:
            Abandon: Always.
        """
        if self.is_point:
            self._push(self.spans, ())  # nothing is left to halve: the real function settles a point
            raise Abandon
        axes = {axis for test, _ in self.facts for axis in test.node.axes}
        axis = max(axes or range(len(self.spans)), key=lambda a: self.spans[a].hi - self.spans[a].lo)
        if self.spans[axis].is_point:
            axis = max(range(len(self.spans)), key=lambda a: self.spans[a].hi - self.spans[a].lo)
        span = self.spans[axis]
        middle = (span.lo + span.hi) // 2
        for half in (span.clip(middle + 1, span.hi), span.clip(span.lo, middle)):
            if half is not None:
                self._push_span(axis, half)
        raise Abandon

    def _candidates(self) -> Iterator[list[int]]:
        axes = [axis for axis, span in enumerate(self.spans) if not span.is_point]
        for corner in range(1 << min(len(axes), _MAX_CORNER_AXES)):
            point = self.low_corner
            for bit, axis in enumerate(axes[:_MAX_CORNER_AXES]):
                point[axis] = self.spans[axis].hi if corner >> bit & 1 else self.spans[axis].lo
            yield point
        for _ in range(_N_RANDOM):
            point = self.low_corner
            for axis in axes:
                span = self.spans[axis]
                near = span.clip(self._random.randint(span.lo, span.hi), span.hi)
                point[axis] = near.lo if near else span.lo
            yield point

    def _satisfies(self, point: Sequence[int]) -> bool:
        try:
            return all(test.holds(point) is truth for test, truth in self.facts)
        except ArithmeticError:
            return False  # a divisor that another fact excludes

    def _assume(self, test: Test) -> bool:
        """Go on as if the test were true; that it were false is to do."""
        self._push(self.spans, (*self.facts, (test, False)))
        self.facts.append((test, True))
        return True

    # --- deciding ----------------------------------------------------------------------------------------------------

    def _bounds(self, node: Node) -> tuple[Any, Any]:
        """Bounds of a node over the box, sharpened by the facts about it."""
        low, high = node.bounds(self.spans)
        for test, truth in self.facts:
            if test.node is node:
                low, high = _sharpened(low, high, test, truth)
        return low, high

    def _known(self, test: Test) -> bool | None:
        for fact, truth in self.facts:
            if fact.node is test.node and fact.relation == test.relation and fact.constant == test.constant:
                return truth
        if all(self.spans[axis].is_point for axis in test.node.axes):
            return test.holds(self.low_corner)
        low, high = self._bounds(test.node)
        c = test.constant
        if test.relation == "le":
            return True if high <= c else False if low > c else None
        if test.relation == "lt":
            return True if high < c else False if low >= c else None
        if test.relation == "eq":
            return False if c < low or c > high else True if low == high == c else None
        return None

    def _split_by_residue(self, test: Test, axis: int) -> bool:
        periodic = test.node.periodic
        if periodic is None or periodic.rise:
            return False
        span = self.spans[axis]
        matching, others = test.residues(periodic)
        try:
            parts = [span.refine(periodic.period, residues) for residues in (matching, others) if residues]
        except OverflowError:
            return False
        self._keep_first(axis, [part for part in parts if part is not None])
        return True

    def _split_by_direction(self, test: Test, axis: int) -> bool:
        direction = test.node.directions.get(axis)
        if direction is None or test.relation == "same":
            return False
        span, point = self.spans[axis], self.low_corner

        def value(position: int) -> Any:
            point[axis] = position
            return test.node.value(point)

        c = test.constant
        # Along the axis the value passes c once: below, perhaps equal, above (or the other way round).
        reaches, passes = (operator.ge, operator.gt) if direction > 0 else (operator.le, operator.lt)
        cuts = [first(span, lambda i: reaches(value(i), c)), first(span, lambda i: passes(value(i), c))]
        if test.relation == "le":
            cuts = cuts[1:] if direction > 0 else cuts[:1]
        elif test.relation == "lt":
            cuts = cuts[:1] if direction > 0 else cuts[1:]
        self._keep_first(axis, cut(span, cuts))
        return True

    def _split_by_zone(self, test: Test, axis: int) -> bool:
        """A periodic form that rises, but not everywhere: only within a few periods around the constant is a test open."""
        periodic = test.node.periodic
        if periodic is None or not periodic.rise or test.relation == "same":
            return False
        span = self.spans[axis]
        parts = cut(span, zone(periodic, test.constant))
        if len(parts) < 2:  # noqa: PLR2004 - nothing was cut off: the zone fills the span
            return False
        self._keep_first(axis, parts)
        if self._known_here(test) is None:
            self._tabulate(test, axis)
        return True

    def _known_here(self, test: Test) -> bool | None:
        """Whether a rising periodic test is settled by the extremes of its table over the current span."""
        periodic, span = test.node.periodic, self.spans[next(iter(test.node.axes))]
        assert periodic is not None  # noqa: S101 - for the type checker
        rises = [periodic.rise * (i // periodic.period) for i in (span.lo, span.hi)]
        low, high = min(rises) + min(periodic.values), max(rises) + max(periodic.values)
        c = test.constant
        if high < c or (test.relation == "le" and high <= c):
            return True
        return False if low > c else None

    def _split_by_operand(self, node: Node, axis: int) -> None:
        """Nothing is known of the node, but perhaps it would be if an operand of it were constant (a tile by powers of two).

        Raises:
            Abandon: There is such an operand, of few values; the parts of the box with one value each are to do.
        """
        waiting, seen = [*node.operands], {id(node)}
        while waiting:
            operand = waiting.pop()
            if id(operand) in seen:
                continue
            seen.add(id(operand))
            waiting += operand.operands
            parts = self._by_value(operand, axis) if operand.periodic is None else []
            if len(parts) > 1:
                for part in parts:
                    self._push_span(axis, part)
                raise Abandon

    def _by_value(self, node: Node, axis: int) -> list[Span]:
        """The parts of the box in which a node of one axis has one value each; none unless it goes through few, one way."""
        direction = node.directions.get(axis)
        if direction is None or not node.is_int or node.axis != axis:
            return []
        span, point = self.spans[axis], self.low_corner
        passes = operator.gt if direction > 0 else operator.lt

        def value(position: int) -> Any:
            point[axis] = position
            return node.value(point)

        cuts = [span.lo]
        while cuts[-1] <= span.hi:
            if len(cuts) > _FEW:
                return []
            current = value(cuts[-1])
            cuts.append(first(Span(cuts[-1], span.hi), lambda i: passes(value(i), current)))  # noqa: B023 - used at once
        return cut(span, cuts[1:-1])

    def _tabulate(self, test: Test, axis: int) -> None:
        """Nothing is known of the node: evaluate the test at every position that is left of its one axis."""
        span = self.spans[axis]
        self.budget.spend(span.count(), test, axis)
        if span.count() > _MAX_TABULATED:
            self.enumerated.setdefault(axis, author_site())
        point = self.low_corner
        runs: list[tuple[bool, int, int]] = []
        for position in span.members():
            point[axis] = position
            truth = test.holds(point)
            if runs and runs[-1][0] is truth:
                runs[-1] = (truth, runs[-1][1], position)
            else:
                runs.append((truth, position, position))
        self._keep_first(axis, [part for _, lo, hi in runs if (part := span.clip(lo, hi)) is not None])

    def _keep_first(self, axis: int, parts: Sequence[Span]) -> None:
        """Go on with the part that holds the smallest position; the others are to do."""
        kept = min(parts, key=lambda part: part.lo)
        for part in parts:
            if part is not kept:
                self._push_span(axis, part)
        self.spans[axis] = kept

    def _push_span(self, axis: int, span: Span) -> None:
        spans = list(self.spans)
        spans[axis] = span
        self._push(spans, tuple(self.facts))

    def _push(self, spans: Sequence[Span], facts: tuple[tuple[Test, bool], ...]) -> None:
        self._todo.append(Item(tuple(spans), facts))


def _sharpened(low: Any, high: Any, test: Test, truth: bool) -> tuple[Any, Any]:
    c, is_int = test.constant, test.node.is_int and isinstance(test.constant, int)
    if test.relation == "eq":
        return (max(low, c), min(high, c)) if truth else (low, high)
    if test.relation == "le":
        return (low, min(high, c)) if truth else (max(low, c + 1 if is_int else c), high)
    if test.relation == "lt":
        return (low, min(high, c - 1 if is_int else c)) if truth else (max(low, c), high)
    return low, high
