"""A start in Chrome's trace event format, for Perfetto (https://ui.perfetto.dev) and chrome://tracing.

A process of the trace is a process that planned keys; its tracks are its phases, the keys that it made warm, the compile
processes that built for it, and what it met after the warm-up. Process ids of several hosts may be equal, so the trace numbers
its own, and names them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from jitwarm.reports.start import Process, Span, Start, Unexpected, Worker

_MICROSECONDS = 1e6
# Tracks of a process; its compile processes follow.
_PHASES, _LOADS, _LATER = "phases", "keys: loaded, or built here", "after the warm-up"


def trace(start: Start) -> dict[str, Any]:
    """The document. Within a track, slices follow or enclose one another, and times never go back."""
    events: list[dict[str, Any]] = []
    known = [*start.builders, *start.processes]
    for number, process in enumerate(known, 1):
        events += _of_process(start, number, process)
    orphans = [worker for worker in start.workers if worker.parent not in {process.id for process in known}]
    if orphans:
        number = len(known) + 1
        events += _named(number, "compile processes of no known process", [worker.id for worker in orphans])
        for track, worker in enumerate(orphans, 1):
            events += _builds(start, number, track, worker)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "run": start.name,
            "target": start.target,
            "started_ns": start.started_ns,
            "versions": start.versions,
        },
    }


def lanes(spans: Iterable[Span]) -> list[list[Span]]:
    """Spans in as few lanes as possible, so that those of one lane follow one another."""
    found: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: (span.start_s, span.end_s)):
        lane = next((lane for lane in found if lane[-1].end_s <= span.start_s), None)
        if lane is None:
            found.append([span])
        else:
            lane.append(span)
    return found


def _of_process(start: Start, number: int, process: Process) -> list[dict[str, Any]]:
    tracks = [(_PHASES, lane) for lane in lanes(process.phases)] + [(_LOADS, lane) for lane in lanes(process.loads)]
    for worker in start.workers:
        if worker.parent == process.id:
            tracks += [(name_of(worker), lane) for lane in lanes(worker.builds) or [[]]]
    events = _named(number, process.name, [name for name, _ in tracks] + [_LATER])
    for track, (name, spans) in enumerate(tracks, 1):
        events += [_slice(start, number, track, span, "phase" if name == _PHASES else "key") for span in spans]
    return events + _instants(start, process, number, len(tracks) + 1)


def name_of(worker: Worker) -> str:
    """A track's, for people."""
    if worker.is_host:
        return f"host {worker.id.partition(' for ')[0]}"
    return f"worker {worker.id.rpartition(':')[2]}" + (f" ({worker.backend})" if worker.backend else "")


def _builds(start: Start, number: int, track: int, worker: Worker) -> list[dict[str, Any]]:
    return [_slice(start, number, track, span, "key") for span in worker.builds]


def _named(number: int, name: str, tracks: Sequence[str]) -> list[dict[str, Any]]:
    """The names, and the order, of a process and its tracks."""
    events = [
        _metadata("process_name", number, 0, name=name),
        _metadata("process_sort_index", number, 0, sort_index=number),
    ]
    for track, text in enumerate(tracks, 1):
        events += [
            _metadata("thread_name", number, track, name=text),
            _metadata("thread_sort_index", number, track, sort_index=track),
        ]
    return events


def _metadata(what: str, number: int, track: int, **args: Any) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": number, "tid": track, "args": args}


def _slice(start: Start, number: int, track: int, span: Span, category: str) -> dict[str, Any]:
    begin_us, end_us = _us(span.start_s), _us(span.end_s)
    return {
        "name": span.name,
        "cat": f"{category},{span.outcome}" if span.outcome else category,
        "ph": "X",
        "ts": begin_us,
        "dur": max(end_us - begin_us, 0),
        "pid": number,
        "tid": track,
        "args": _args(start, span),
    }


def _args(start: Start, span: Span) -> dict[str, Any]:
    key = start.keys.get(span.key) if span.key else None
    if key is None:
        return {"key": span.key[1]} if span.key else {}
    return {"key": key.label, "outcome": span.outcome, "digest": key.digest} | (
        {"error": key.error} if key.error else {}
    )


def _instants(start: Start, process: Process, number: int, track: int) -> list[dict[str, Any]]:
    met = [(at_s, found) for found in start.unexpected for owner, at_s in found.at_s if owner == process.id]
    return [_instant(number, track, at_s, found) for at_s, found in sorted(met, key=lambda pair: pair[0])]


def _instant(number: int, track: int, at_s: float, found: Unexpected) -> dict[str, Any]:
    args = {
        "key": found.label,
        "function": found.function,
        "why": found.why,
        "differences": "; ".join(found.differences),
    }
    return {
        "name": f"unexpected {found.what}: {found.kernel or found.function}",
        "cat": "unexpected",
        "ph": "i",
        "s": "t",
        "ts": _us(at_s),
        "pid": number,
        "tid": track,
        "args": {**args, "line": found.line, "site": found.site},
    }


def _us(seconds: float) -> int:
    """Whole microseconds: what is written as begin and duration ends where the next one begins, exactly."""
    return round(seconds * _MICROSECONDS)
