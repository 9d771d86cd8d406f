"""A start as the one documented JSON document (docs/reference/reports.md). Plain data; nothing is rounded away but noise."""

import datetime as dt
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from jitwarm.reports.coverage import Coverage, of_kernels, of_plugins
from jitwarm.reports.start import Key, Late, Process, Start, Unexpected, Worker

FORMAT, VERSION = "jitwarm-report", 1


def document(start: Start) -> dict[str, Any]:
    """Everything that is known of a start, but for the time line, which is the trace's."""
    kernels = of_kernels(start)
    idle = start.never_used
    return {
        "format": FORMAT,
        "version": VERSION,
        **headline(start),
        "processes": [_process(process) for process in start.processes],
        "builders": [_process(process) for process in start.builders],
        "workers": [_worker(worker) for worker in start.workers],
        "plugins": [_coverage(row, "plugin") for row in of_plugins(kernels)],
        "kernels": _kernels(start, kernels),
        "keys": [_key(start, key) for key in start.keys.values()],
        "unlisted": [asdict(unlisted) for unlisted in start.unlisted],
        "unexpected": [_unexpected(start, found) for found in start.unexpected],
        "undeclared": [{**_unexpected(start, found), "during": found.during} for found in start.undeclared],
        "execution": None
        if start.execution is None
        else {**asdict(start.execution), "seconds": _round(start.execution.seconds)},
        "reloaded": [_late(late) for late in start.reloads],
        "modules_loaded": [_late(late) for late in start.modules],
        "never_used": None
        if idle is None
        else [
            {"kernel": key.kernel, "digest": key.digest, "label": key.label, "seconds": _round(key.seconds)}
            for key in idle
        ],
        "uses_unknown": sorted(start.uses_unknown),
        "incidents": [{**asdict(incident), "at_s": _round(incident.at_s)} for incident in start.incidents],
        **_findings(start),
        "versions": start.versions,
        "environment": start.environment,
        "config": start.config,
    }


def headline(start: Start) -> dict[str, Any]:
    """The numbers that come first."""
    idle = start.never_used
    return {
        "run": start.name,
        "source": start.source,
        "started": dt.datetime.fromtimestamp(start.started_ns / 1e9, dt.UTC).isoformat(timespec="milliseconds"),
        "seconds": _round(start.seconds),
        "hidden_s": _round(start.hidden_s),
        "added_s": _round(start.added_s),
        "is_complete": start.is_complete,
        "is_warm": start.is_warm,
        "target": start.target,
        "on_device": start.on_device,
        "root": next((process.report.root for process in start.processes), ""),
        "n_keys": len(start.keys),
        "n_warm": sum(key.is_warm for key in start.keys.values()),
        "n_cold": len(start.cold),
        "outcomes": start.outcomes,
        "n_compiles": start.n_compiles,
        "watched_by": start.watched_by,
        "n_unexpected": len(start.unexpected),
        "seconds_lost": _round(start.seconds_lost),
        "n_undeclared": len(start.undeclared),
        "n_reloaded": len(start.reloads),
        "n_never_used": None if idle is None else len(idle),
        "seconds_never_used": None if idle is None else _round(sum(key.seconds for key in idle)),
        "n_unreadable": start.n_unreadable,
        "n_foreign": start.n_foreign,
    }


def to_text(value: Any) -> str:
    """JSON as a person would want to read it."""
    return json.dumps(value, indent=2, default=str) + "\n"


def _process(process: Process) -> dict[str, Any]:
    return {
        "id": process.id,
        "rank": process.rank,
        "name": process.name,
        "seconds": _round(process.end_s - process.start_s),
        "phases": {span.name: _round(span.end_s - span.start_s) for span in process.phases},
        "outcomes": process.report.outcomes,
        "n_compiles": process.report.n_compiles,
        "is_complete": process.is_complete,
    }


def _worker(worker: Worker) -> dict[str, Any]:
    return {
        "id": worker.id,
        "process": worker.parent,
        "backend": worker.backend,
        "is_host": worker.is_host,
        "n_builds": len(worker.builds),
        "busy_s": _round(worker.busy_s),
        "why_ended": worker.why_ended,
    }


def _kernels(start: Start, rows: Iterable[Coverage]) -> list[dict[str, Any]]:
    known = {
        name: {"backend": backend, "distribution": distribution, "notes": notes}
        for name, backend, distribution, notes in start.kernels()
    }
    nobodys: dict[str, Any] = {"backend": None, "distribution": "", "notes": []}
    return [{**_coverage(row, "id"), **known.get(row.name, nobodys)} for row in rows]


def _coverage(row: Coverage, name: str) -> dict[str, Any]:
    counts = asdict(row)
    rounded = {field: _round(value) if isinstance(value, float) else value for field, value in counts.items()}
    return {name: rounded.pop("name"), **rounded}


def _key(start: Start, key: Key) -> dict[str, Any]:
    return {
        "kernel": key.kernel,
        "digest": key.digest,
        "key": key.text,
        "label": key.label,
        "outcome": key.outcome,
        "seconds": _round(key.seconds),
        "error": key.error,
        "by_process": {process: row.outcome for process, row in key.rows.items()},
        "worker": key.worker or None,
        "used": key.is_used if start.is_watched and key.kernel not in start.uses_unknown else None,
        "regions": key.regions,
        "n_regions": key.n_regions,
        "witness": key.witness,
        "repro": start.repro(key) or None,
    }


def _unexpected(start: Start, found: Unexpected) -> dict[str, Any]:
    names = {process.id: process.name for process in start.processes}
    record = asdict(found)
    record.pop("at_s")
    record.pop("during")
    return {
        **record,
        "plugin": found.plugin,
        "seconds": _round(found.seconds),
        "first_s": _round(found.first_s),
        "processes": [names.get(process, process) for process in found.processes],
    }


def _late(late: Late) -> dict[str, Any]:
    return {**asdict(late), "seconds": _round(late.seconds)}


def _findings(start: Start) -> dict[str, Any]:
    """What each process said, once."""
    found: dict[str, list[Any]] = {"refused": [], "policy_errors": [], "left_out": []}
    for process in start.processes:
        for name, known in found.items():
            known += [item for item in getattr(process.report, name) if item not in known]
    return found


def _round(seconds: float) -> float:
    return round(seconds, 4)
