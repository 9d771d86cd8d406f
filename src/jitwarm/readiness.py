"""The ready file: how far the warm-up of this node is, for probes that must tell "still compiling" from "hung".

One file for all ranks of a node, because a probe asks one question. Each rank puts its own state into it, under a lock beside it,
and publishes it by rename. It is written when something has happened and never by a clock, so its age is the time since the last
progress. What an earlier start left is dropped by the first write of the next one, and by `forget`.
"""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jitwarm.environment import LINEAGE
from jitwarm.errors import LockTimeoutError
from jitwarm.store.locks import locked

_DONE, _NONE = "done", "no warm-up"
_LOCK_TIMEOUT_S = 5.0
_PAUSE_S = 0.25  # between two writes: keys that are loaded take milliseconds
_LAST_WRITE_S = 10.0
_kept: dict[Path, "ReadyFile"] = {}  # by this process


@dataclass
class RankState:
    """How far one rank is."""

    rank: int | None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    born: int = field(default_factory=lambda: _born(os.getpid()))
    phase: str = "plan"
    n_keys: int = 0
    n_done: int = 0
    current: str = ""
    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


class ReadyFile:
    """Listens to one rank's run and keeps the file up to date, from a thread of its own, until the run is over.

    Never raises. A slow disk holds up the run for its last write only, and for at most ten seconds.

    Args:
        path: The file; its directory must be there.
        rank: Of this process; None where there is one process only.
        n_ranks: Ranks on this node that have to be ready.
        complain: Called with one sentence, once, if the file cannot be written.
    """

    def __init__(
        self, path: Path, rank: int | None = None, n_ranks: int = 1, complain: Callable[[str], None] = lambda _: None
    ) -> None:
        self._path = path
        _kept[path] = self
        self._start = os.environ.get(LINEAGE, "").partition("/")[0]
        self._n_ranks = n_ranks
        self._complain: Callable[[str], None] | None = complain
        self._state = RankState(rank)
        self._outcomes: Counter[str] = Counter()
        self._began = time.monotonic()
        self._is_over = False
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event into account."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is None or self._is_over:
            return
        self._start = self._start or event["run"]
        handler(event)
        self._changed.set()
        if self._thread is None and not self._is_over:
            self._thread = threading.Thread(target=self._keep, name="jitwarm: ready file", daemon=True)
            self._thread.start()

    def give_up(self, why: str) -> None:
        """There is no warm-up, and the server starts all the same: this rank is ready, and not warm."""
        self._state.error = why
        self._end(_NONE)

    def _on_run_start(self, _: Mapping[str, Any]) -> None:
        """The file appears."""

    def _on_key_planned(self, _: Mapping[str, Any]) -> None:
        self._state.n_keys += 1

    def _on_build_start(self, event: Mapping[str, Any]) -> None:
        self._state.phase, self._state.current = "warm-up", event["kernel"]

    def _on_key_start(self, event: Mapping[str, Any]) -> None:
        self._state.phase, self._state.current = "warm-up", f"{event['kernel']} [{event['label']}]"

    def _on_key_end(self, event: Mapping[str, Any]) -> None:
        self._state.n_done += 1
        self._outcomes[event["outcome"]] += 1

    def _on_run_end(self, _: Mapping[str, Any]) -> None:
        self._end(_DONE)

    def _end(self, phase: str) -> None:
        self._is_over = True
        self._changed.set()
        last = threading.Thread(target=self._write_last, args=(phase,), name="jitwarm: ready file", daemon=True)
        last.start()
        last.join(_LAST_WRITE_S)

    def _write_last(self, phase: str) -> None:
        if self._thread is not None:
            self._thread.join()
        self._state.phase, self._state.current = phase, ""
        self._publish()

    def _keep(self) -> None:
        while not self._is_over:
            self._changed.wait()
            self._changed.clear()
            if not self._is_over:
                self._publish()
                time.sleep(_PAUSE_S)

    def _publish(self) -> None:
        self._state.outcomes = dict(self._outcomes)
        self._state.seconds = round(time.monotonic() - self._began, 1)
        try:
            with locked(_lock_of(self._path), _LOCK_TIMEOUT_S):
                _replace(self._path, self._document(read(self._path)))
        except (OSError, LockTimeoutError) as exc:
            if self._complain is not None:
                self._complain(f"the ready file {self._path} is not written: {exc}")
            self._complain = None

    def _document(self, before: Mapping[str, Any] | None) -> dict[str, Any]:
        """What other ranks of this start have written, with this rank's state. Ready stays ready: ranks may warm up again."""
        same = before if before and before.get("start") == self._start else {}
        own = (self._state.host, self._state.pid)
        ranks = [state for state in same.get("ranks", ()) if (state["host"], state["pid"]) != own]
        ranks = sorted([*ranks, asdict(self._state)], key=lambda state: (state["rank"] or 0, state["pid"]))
        slowest = min(ranks, key=lambda state: (_is_ready(state), state["n_done"] / (state["n_keys"] or 1)))
        shown = ("phase", "n_done", "n_keys", "current", "outcomes", "seconds", "error")
        return {
            "ready": same.get("ready") is True or (len(ranks) >= self._n_ranks and all(map(_is_ready, ranks))),
            **{name: slowest[name] for name in shown},
            "updated_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "start": self._start,
            "n_ranks": self._n_ranks,
            "ranks": ranks,
        }


def read(path: Path) -> dict[str, Any] | None:
    """The document; None where there is none.

    Raises:
        OSError: It is there and cannot be read.
    """
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def forget(path: str | Path) -> None:
    """Remove what an earlier start left, so that nobody takes it for this one's. Never raises.

    Left alone is a file of which a writer lives, for a second command in a server's container has the same settings; and what is
    no ready file.
    """
    with contextlib.suppress(Exception):
        path = Path(path).expanduser()
        document = read(path) or {}
        if "ready" in document and not any(map(_is_alive, document["ranks"])):
            path.unlink(missing_ok=True)


def give_up(path: Path, why: str, rank: int | None = None, n_ranks: int = 1) -> None:
    """Say that this rank has no warm-up, whether or not one had begun. Never raises."""
    (_kept.get(path) or ReadyFile(path, rank, n_ranks)).give_up(why)


def write_off(path: str | Path, why: str) -> None:
    """Say that no rank has a warm-up in this start, and that whoever waits for it may go on. Never raises."""
    with contextlib.suppress(OSError):
        document = {"ready": True, "phase": _NONE, "n_done": 0, "n_keys": 0, "error": why, "start": "", "ranks": []}
        _replace(Path(path).expanduser(), document)


def _is_alive(state: Mapping[str, Any]) -> bool:
    return bool(state.get("host") == socket.gethostname() and state.get("born") == _born(int(state.get("pid", 0))))


def _born(pid: int) -> int:
    """When a process of this host began, in the kernel's ticks; -1 for none. Process ids repeat, pairs of both do not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    return int(text.rpartition(")")[2].split()[19])


def _is_ready(state: Mapping[str, Any]) -> bool:
    return state["phase"] in (_DONE, _NONE)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _replace(path: Path, document: Mapping[str, Any]) -> None:
    """Publish by rename, readable for a probe that runs as another user."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            os.fchmod(fd, 0o644)
            json.dump(document, stream, indent=1)
            stream.write("\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
