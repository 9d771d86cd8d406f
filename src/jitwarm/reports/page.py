"""A start as one self-contained HTML page: no file beside it, no network, and a policy in it that forbids both.

The data is one block of JSON, in which nothing can end the block; the page's script sets all of it as text. The page's own style
and script are the only ones that its policy lets run, by their digests.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jitwarm.reports.document import document
from jitwarm.reports.start import Key, Process, Span, Start, Worker
from jitwarm.reports.trace import lanes, name_of

_PARTS = Path(__file__).with_name("page")
_SCRIPTS = ("data.js", "timeline.js", "overview.js", "keys.js", "main.js")
_FIELDS = ("digest", "label", "key", "outcome", "seconds", "error", "worker", "used", "regions", "n_regions", "witness")
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}


def page(start: Start) -> str:
    """The page's text, ASCII but for what the parts hold."""
    style = _part("page.css")
    script = "(() => {\n'use strict';\n" + "\n".join(_part(name) for name in _SCRIPTS) + "})();\n"
    filled = {
        "POLICY": f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'",
        "STYLE": style,
        "SCRIPT": script,
        "DATA": embedded(data(start)),
    }
    # Piece by piece, so that nothing that was filled in is looked at again.
    first, *pieces = _part("page.html").split("{{")
    return first + "".join(filled[name] + rest for name, _, rest in (piece.partition("}}") for piece in pieces))


def embedded(value: Any) -> str:
    """JSON that can stand in a script element: it holds neither `</script` nor `<!--`, whatever a key or an error says."""
    text = json.dumps(value, separators=(",", ":"), default=str)
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return text


def data(start: Start) -> dict[str, Any]:
    """What the page shows: the document, with its keys as rows, and the time line."""
    whole = document(start)
    shown = ("processes", "builders", "plugins", "kernels", "unlisted", "unexpected", "undeclared", "execution", "reloaded",
             "modules_loaded", "incidents", "refused", "policy_errors", "left_out", "versions", "environment",
             "config")  # fmt: skip
    names = {name: i for i, name in enumerate(dict.fromkeys(key.kernel for key in start.keys.values()))}
    order = {name: i for i, name in enumerate(start.keys)}
    return {
        "head": {name: value for name, value in whole.items() if not isinstance(value, list) and name not in shown},
        **{name: whole[name] for name in shown},
        "n_workers": len(start.workers),
        "names": list(names),
        "keys": [
            _row(start, key, record, names) for key, record in zip(start.keys.values(), whole["keys"], strict=True)
        ],
        "cold": [order[key.kernel, key.digest] for key in start.cold],
        "timeline": _timeline(start, order),
    }


def _row(start: Start, key: Key, record: dict[str, Any], names: dict[str, int]) -> list[Any]:
    """One key, in the order that `data.js` names."""
    outcomes = [key.rows[process.id].outcome if process.id in key.rows else 0 for process in start.processes]
    differing = outcomes if len(set(outcomes)) > 1 else None
    return [names[key.kernel], *(record[name] for name in _FIELDS), differing, record["repro"]]


def _timeline(start: Start, order: dict[tuple[str, str], int]) -> dict[str, Any]:
    """Tracks, slices `[track, begin, end, key or -1, name, outcome]`, and marks `[track, time, unexpected compile]`."""
    tracks: list[dict[str, str]] = []
    slices: list[list[Any]] = []
    marks: list[list[Any]] = []
    for process in [*start.builders, *start.processes]:
        first = len(tracks)
        for name, spans in _tracks(start, process):
            slices += [_slice(len(tracks), span, order) for span in spans]
            tracks.append({"group": process.name, "name": name})
        marks += [
            [first, at_s, i]
            for i, found in enumerate(start.unexpected)
            for who, at_s in found.at_s
            if who == process.id
        ]
    for worker in _orphans(start):
        slices += [_slice(len(tracks), span, order) for span in worker.builds]
        tracks.append({"group": "compile processes of no known process", "name": name_of(worker)})
    end_s = max([start.seconds, *(item[2] for item in slices)])
    return {
        "end": end_s or 1e-3,
        "tracks": tracks,
        "slices": slices,
        "marks": [mark for mark in marks if mark[1] <= end_s],
    }


def _tracks(start: Start, process: Process) -> list[tuple[str, list[Span]]]:
    tracks = [("phases", lane) for lane in lanes(process.phases)]
    tracks += [("keys", lane) for lane in lanes(process.loads)]
    for worker in start.workers:
        if worker.parent == process.id:
            tracks += [(name_of(worker), lane) for lane in lanes(worker.builds)]
    return tracks


def _orphans(start: Start) -> list[Worker]:
    known = {process.id for process in [*start.processes, *start.builders]}
    return [worker for worker in start.workers if worker.parent not in known and worker.builds]


def _slice(track: int, span: Span, order: dict[tuple[str, str], int]) -> list[Any]:
    at = order.get(span.key, -1) if span.key else -1
    return [track, round(span.start_s, 5), round(span.end_s, 5), at, span.name, span.outcome]


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
