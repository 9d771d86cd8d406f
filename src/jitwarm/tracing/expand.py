"""`trace_dispatch`: the exact set of keys that `dispatch` can return over a declared domain.

The function is followed symbolically, region by region (`search`). Where that is not possible (no source, syntax that symbols
cannot pass through) it is called at every point instead, within the same budget, and the notes say so. Past the budget an
error names what needed it: a partial set is never returned.
"""

import dis
import inspect
import itertools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jitwarm.contract.keys import require_frozen
from jitwarm.contract.spaces import Rows
from jitwarm.errors import DomainError, InvalidKernelError, KeySpaceTooLargeError, TracingError
from jitwarm.tracing.budget import Budget, Exhausted
from jitwarm.tracing.definition import definition_fault
from jitwarm.tracing.domain import Domain, acceptor, check_inputs, declare, function_name, source_place
from jitwarm.tracing.lift import Site
from jitwarm.tracing.places import excerpt_at, expression_at
from jitwarm.tracing.search import Found, Real, Region, Search
from jitwarm.tracing.source import UntraceableError
from jitwarm.tracing.spans import Span

# In place of a condition, where regions are not known.
_FIRST_ONLY = "and perhaps others: each input was tried by itself"
_COLLECTED: ContextVar[list["Trace"] | None] = ContextVar("jitwarm_traces", default=None)


@dataclass(frozen=True)
class Trace:
    """What tracing found.

    Attributes:
        keys: Every reachable key once, ordered by the smallest input that was found to reach it: inputs in the order of
            declaration, the last one varying fastest.
        regions: Sets of inputs that reach a key, with a witness each; `Region.key` is an index of `keys`.
        notes: What a reviewer should know, one sentence each.
        n_evaluations: How much of `max_points` was spent.
        domain: The declared inputs: for each group of rows, name -> values.
        key_at: The key at a point, by a call of the author's own function; None where the point is outside the domain.
    """

    keys: tuple[Any, ...]
    regions: tuple[Region, ...]
    notes: tuple[str, ...]
    n_evaluations: int
    domain: tuple[Mapping[str, Sequence[Any]], ...] = ()
    key_at: Real = field(default=lambda _: None, repr=False, compare=False)

    def witness(self, index: int) -> Mapping[str, Any]:
        """The smallest input that was found to reach a key."""
        return min((r for r in self.regions if r.key == index), key=lambda r: r.rank).witness


def trace_dispatch(
    dispatch: Callable[..., Any],
    *rows: Rows | Mapping[str, Any],
    when: Callable[..., bool] | None = None,
    max_points: int = 1_000_000,
    **inputs: Any,
) -> list[Any]:
    """The compile keys that `dispatch` can return over a domain: none missing, none extra, each once.

    Args:
        dispatch: Ordinary Python that returns a compile key; deterministic, without side effects.
        rows: Coupled inputs, from `rows(...)`. Several groups, and the named inputs, combine freely.
        when: A predicate over some of the inputs; a point where it is false is outside the domain. It may take inputs that
            `dispatch` does not (a limit, say).
        max_points: How many evaluations may be spent.
        inputs: For each parameter a space (`IntRange`, `Choices`) or a plain value.

    Returns:
        The keys, ordered by the smallest input that reaches them. `1`, `True` and `1.0` are different values.

    Raises:
        DomainError: A misspelt or missing input, or a domain in which no point reaches a key.
        KeySpaceTooLargeError: More than `max_points` evaluations would be needed; names the expression and the input.
        TracingError: `dispatch` fails at a point other than by its own `assert` or `raise`, or returns no key.
    """
    return list(trace(dispatch, *rows, when=when, max_points=max_points, **inputs).keys)


def trace(
    dispatch: Callable[..., Any],
    *rows: Rows | Mapping[str, Any],
    when: Callable[..., bool] | None = None,
    max_points: int = 1_000_000,
    **inputs: Any,
) -> Trace:
    """As `trace_dispatch`, with regions, notes and cost."""
    domain = declare(rows, inputs)
    check_inputs(dispatch, when, domain)
    for function in filter(None, (dispatch, when)):
        if fault := definition_fault(function):
            raise TracingError(*fault)
    real = _real(dispatch, when)
    # Where the domain can be enumerated, analysis may cost no more than a part of that.
    can_enumerate = domain.n_points <= max_points
    budget = Budget(min(max_points, domain.n_points // 8 + 2000) if can_enumerate else max_points)
    found, notes = Found(), []
    try:
        for n_box, box in enumerate(domain.boxes):
            Search([when, dispatch] if when else [dispatch], box, real, budget, found, n_box).run()
    except (UntraceableError, Exhausted) as exc:
        if isinstance(exc, Exhausted) and not can_enumerate:
            raise _too_large(dispatch, domain, max_points, budget, exc) from None
        cause = exc if isinstance(exc, UntraceableError) else _too_many(budget)
        found, budget = Found(opaque=found.opaque), Budget(max_points)
        _enumerate(dispatch, domain, real, budget, found, cause)
        notes.append(f"every point was evaluated: {cause.sentence}")
    result = _ordered(dispatch, domain, real, found, notes, budget)
    collected = _COLLECTED.get()
    if collected is not None:
        collected.append(result)
    return result


@contextmanager
def collected_traces() -> Iterator[list[Trace]]:
    """While entered, gather every `Trace` that is made here, so that a report needs nothing from the author."""
    traces: list[Trace] = []
    token = _COLLECTED.set(traces)
    try:
        yield traces
    finally:
        _COLLECTED.reset(token)


def _ordered(
    dispatch: Callable[..., Any], domain: Domain, real: Real, found: Found, notes: list[str], budget: Budget
) -> Trace:
    if not found.keys:
        raise DomainError(
            f"{function_name(dispatch)}: no point of the domain reaches a key; all {domain.n_points:,} are outside",
            "check `when`, and the asserts and raises of dispatch, against the declared spaces",
            source_place(dispatch),
        )
    first: dict[int, tuple[int, ...]] = {}
    for region in found.regions:
        first[region.key] = min(first.get(region.key, region.rank), region.rank)
    order = sorted(range(len(found.keys)), key=first.__getitem__)
    place = {old: new for new, old in enumerate(order)}
    regions = sorted(found.regions, key=lambda r: (place[r.key], r.rank))
    if found.outside is not None:
        notes.append(f"some inputs are outside the domain, e.g. {_format(found.outside)}")
    notes += [
        f"every value of {name!r} was evaluated{_asked_by(found.enumerated[name])}" for name in sorted(found.enumerated)
    ]
    notes += [f"{name} was called with plain values: {reason}" for name, reason in sorted(found.opaque.items())]
    if found.n_disagreements:
        notes.append(f"{found.n_disagreements} regions were settled by the function itself")
    return Trace(
        tuple(found.keys[i] for i in order),
        tuple(Region(place[r.key], r.inputs, r.facts, r.witness, r.rank) for r in regions),
        tuple(notes),
        budget.n_spent,
        domain.boxes,
        real,
    )


# --- the author's own functions ----------------------------------------------------------------------------------------


def _real(dispatch: Callable[..., Any], when: Callable[..., Any] | None) -> Callable[[Mapping[str, Any]], Any]:
    """The key at a point, or None where the point is outside the domain."""
    call = acceptor(dispatch)
    holds = acceptor(when) if when else None

    def key_at(point: Mapping[str, Any]) -> Any:
        return _key_at(dispatch, call, point) if holds is None or holds(point) else None

    return key_at


def _enumerate(
    dispatch: Callable[..., Any],
    domain: Domain,
    real: Callable[[Mapping[str, Any]], Any],
    budget: Budget,
    found: Found,
    cause: UntraceableError,
) -> None:
    """Call the author's function at every point of the domain."""
    if domain.n_points > budget.n_left:
        name, size = domain.widest
        bound = f"bound the widest input, {name!r} with {size:,} values, by a step or rows(...), or raise max_points"
        raise KeySpaceTooLargeError(
            f"{function_name(dispatch)} can only be called point by point, and its domain has {domain.n_points:,} points, more "
            f"than max_points={budget.n_left:,}: {cause.message}",
            f"{cause.hint}; or {bound}" if cause.hint else bound,
            cause.where or source_place(dispatch),
        )
    budget.spend(domain.n_points, None, None)
    for n_box, box in enumerate(domain.boxes):
        for positions in itertools.product(*(range(len(values)) for values in box.values())):
            point = {name: values[i] for (name, values), i in zip(box.items(), positions, strict=True)}
            key = real(point)
            if key is None:
                found.outside = found.outside or point
                continue
            n_before = len(found.keys)
            index = found.add(key)
            if index == n_before:
                spans = {n: (v, Span(i, i)) for (n, v), i in zip(box.items(), positions, strict=True)}
                found.regions.append(Region(index, spans, (_FIRST_ONLY,), point, (n_box, *positions)))


def _key_at(dispatch: Callable[..., Any], call: Callable[[Mapping[str, Any]], Any], point: Mapping[str, Any]) -> Any:
    """The key at one point, or None where dispatch refuses the point by its own `assert` or `raise`."""
    try:
        key = call(point)
    except Exception as exc:
        if _is_refusal(exc, dispatch):
            return None
        raise TracingError(
            f"{function_name(dispatch)}({_format(point)}) failed: {type(exc).__name__}: {exc}",
            "if dispatch is right, exclude such inputs by `when`, or refuse them in dispatch by assert or raise",
            _raising_place(exc),
        ) from exc
    try:
        require_frozen(type(key))
    except InvalidKernelError as exc:
        raise TracingError(
            f"{function_name(dispatch)}({_format(point)}) returned {key!r}, which is no compile key",
            "return an instance of the kernel's frozen CompileKey on every path",
            source_place(dispatch),
        ) from exc
    return key


def _format(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in point.items())


# --- errors ------------------------------------------------------------------------------------------------------------


def _too_large(
    dispatch: Callable[..., Any], domain: Domain, max_points: int, budget: Budget, exc: Exhausted
) -> KeySpaceTooLargeError:
    """Name the expression whose values were asked for most often, with a caret below it."""
    site = _busiest(budget)
    shown, place = excerpt_at(*site) if site else ("", source_place(dispatch))
    name = list(domain.boxes[0])[exc.axis] if exc.axis is not None else domain.widest[0]
    return KeySpaceTooLargeError(
        f"{function_name(dispatch)}: more than max_points={max_points:,} evaluations would be needed{shown and ' for' + shown}",
        f"nothing is known of this expression, so every value of {name!r} counts: bound it by a step or Choices, "
        "or raise max_points",
        place,
    )


def _busiest(budget: Budget) -> Site | None:
    """Where values were asked for most often."""
    return next((site for site, _ in budget.sites.most_common() if site is not None), None)


def _too_many(budget: Budget) -> UntraceableError:
    """Regions were followed, but calling every point is quicker."""
    site = _busiest(budget)
    asked = f", most of them for {_named(site)}" if site else ""
    return UntraceableError(f"its regions are too many to be followed{asked}")


def _asked_by(site: Site | None) -> str:
    return f": nothing is known of {_named(site)}" if site else ""


def _named(site: Site) -> str:
    text, line, _ = expression_at(*site)
    return f"`{text}` ({site[0].co_filename}:{line})"


def _is_refusal(exc: BaseException, dispatch: Callable[..., Any]) -> bool:
    """Whether `exc` comes from an `assert` or `raise` statement of the author's own package.

    An error that a library raises is no decision of the author: to count it as one would lose keys without a word.
    """
    last = _last_traceback(exc)
    if last is None or dis.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] != "RAISE_VARARGS":
        return False
    function = inspect.unwrap(getattr(dispatch, "func", dispatch))
    module = getattr(function, "__module__", "") or ""
    raising = str(last.tb_frame.f_globals.get("__name__", ""))
    return raising.partition(".")[0] == module.partition(".")[0]


def _last_traceback(exc: BaseException) -> types.TracebackType | None:
    last = exc.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last


def _raising_place(exc: BaseException) -> str:
    last = _last_traceback(exc)
    return f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else ""


__all__ = ["Region", "Trace", "collected_traces", "trace", "trace_dispatch"]
