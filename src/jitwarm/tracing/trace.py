"""`trace_dispatch`: the exact set of keys that `dispatch` can return over a declared domain.

This version evaluates the author's own function at every point of the domain, within a budget. That is exact by
construction, and its time grows with the domain: about a microsecond a point. Past the budget it refuses.
"""

import dis
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from jitwarm.contract.keys import encode_key, require_frozen
from jitwarm.contract.spaces import Rows
from jitwarm.errors import DomainError, InvalidKernelError, KeySpaceTooLargeError, TracingError
from jitwarm.tracing.domain import Domain, acceptor, check_inputs, declare, source_place

_COLLECTED: ContextVar[list["Trace"] | None] = ContextVar("jitwarm_traces", default=None)


@dataclass(frozen=True)
class Witness:
    """One input that reaches a key, and how many points of the domain do."""

    inputs: Mapping[str, Any]
    n_points: int


@dataclass(frozen=True)
class Trace:
    """What tracing found.

    Attributes:
        keys: Every reachable key once, in the order in which the domain's points first reach them.
        witnesses: For each key, at the same index, the first point that reaches it.
        n_points: Points that were evaluated.
        n_outside: Points that `when` excludes, or that `dispatch` itself refuses by `assert` or `raise`.
        notes: What a reviewer should know, one sentence each.
    """

    keys: tuple[Any, ...]
    witnesses: tuple[Witness, ...]
    n_points: int
    n_outside: int
    notes: tuple[str, ...] = ()


@dataclass
class _Found:
    """A key while points are still being evaluated."""

    key: Any
    inputs: Mapping[str, Any]
    n_points: int = field(default=0)


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
        max_points: How many points may be evaluated.
        inputs: For each parameter a space (`IntRange`, `Choices`) or a plain value.

    Returns:
        The keys in the order in which the domain's points first reach them: inputs in the order of declaration, the last
        one varying fastest. `1`, `True` and `1.0` are different values.

    Raises:
        DomainError: A misspelt or missing input, or a domain in which no point reaches a key.
        KeySpaceTooLargeError: More than `max_points` points.
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
    """As `trace_dispatch`, with a witness for each key and the counts that a report shows."""
    domain = declare(rows, inputs)
    check_inputs(dispatch, when, domain)
    if domain.n_points > max_points:
        name, size = domain.widest
        raise KeySpaceTooLargeError(
            f"{dispatch.__qualname__}: the declared domain has {domain.n_points:,} points, more than max_points={max_points:,}",
            f"the widest input is {name!r} with {size:,} values: give it a step, couple it with rows(...), or raise max_points",
            source_place(dispatch),
        )
    result = _evaluate(dispatch, when, domain)
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


def _evaluate(dispatch: Callable[..., Any], when: Callable[..., Any] | None, domain: Domain) -> Trace:
    call = acceptor(dispatch)
    holds = acceptor(when) if when else None
    found: dict[str, _Found] = {}
    n_outside = 0
    for point in domain.points():
        key = _key_at(dispatch, call, point) if holds is None or holds(point) else None
        if key is None:
            n_outside += 1
            continue
        entry = found.setdefault(encode_key(key), _Found(key, point))
        entry.n_points += 1
    if not found:
        raise DomainError(
            f"{dispatch.__qualname__}: no point of the domain reaches a key; all {domain.n_points:,} are outside",
            "check `when`, and the asserts and raises of dispatch, against the declared spaces",
            source_place(dispatch),
        )
    notes = (f"{n_outside:,} of {domain.n_points:,} points are outside the domain",) if n_outside else ()
    return Trace(
        tuple(entry.key for entry in found.values()),
        tuple(Witness(entry.inputs, entry.n_points) for entry in found.values()),
        domain.n_points,
        n_outside,
        notes,
    )


def _key_at(dispatch: Callable[..., Any], call: Callable[[Mapping[str, Any]], Any], point: Mapping[str, Any]) -> Any:
    """The key at one point, or None where dispatch refuses the point by its own `assert` or `raise`."""
    inputs = ", ".join(f"{name}={value!r}" for name, value in point.items())
    try:
        key = call(point)
    except Exception as exc:
        if _is_refusal(exc):
            return None
        raise TracingError(
            f"{dispatch.__qualname__}({inputs}) failed: {type(exc).__name__}: {exc}",
            "a point that dispatch cannot serve is refused by assert or raise, or excluded by `when`",
            _raising_place(exc),
        ) from exc
    try:
        require_frozen(type(key))
    except InvalidKernelError as exc:
        raise TracingError(
            f"{dispatch.__qualname__}({inputs}) returned {key!r}, which is no compile key",
            "return an instance of the kernel's frozen CompileKey on every path",
            source_place(dispatch),
        ) from exc
    return key


def _is_refusal(exc: BaseException) -> bool:
    """Whether `exc` comes from an explicit `assert` or `raise` statement, rather than from an operation that failed."""
    last = _last_traceback(exc)
    if last is None:
        return False
    code = last.tb_frame.f_code.co_code
    return dis.opname[code[last.tb_lasti]] == "RAISE_VARARGS"


def _last_traceback(exc: BaseException) -> types.TracebackType | None:
    last = exc.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return last


def _raising_place(exc: BaseException) -> str:
    last = _last_traceback(exc)
    return f"{last.tb_frame.f_code.co_filename}:{last.tb_lineno}" if last else ""
