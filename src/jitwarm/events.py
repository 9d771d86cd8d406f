"""Events: everything that happens in a run, as plain data. Progress bars, logs and reports are functions of them.

One JSON line per event in `<root>/events/<run>/<host>-<pid>.jsonl`, one `O_APPEND` write per line, so that a killed process
leaves whole lines behind. Whoever wants to see events live subscribes. A log that cannot be written never fails a run.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Listener = Callable[[dict[str, Any]], None]
_VERSION = 1
_KEPT_RUNS = 20
_LIVE_S = 86400.0


class EventLog:
    """Emits events to subscribers and, once `keep_in` was called, to this process's file.

    Args:
        run: Names the run; empty makes one from time and process.
        rank: Written into each event where it is given.
    """

    def __init__(self, run: str = "", rank: int | None = None) -> None:
        self._rank = {} if rank is None else {"rank": rank}
        self.run = run or f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        self._listeners: list[Listener] = []
        self._early: list[dict[str, Any]] | None = []
        self._fd: int | None = None
        self._lock = threading.RLock()  # events also come from threads that wait for compile processes

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` with each later event."""
        self._listeners.append(listener)

    def emit(self, event: str, **fields: Any) -> None:
        """Record one event. Never raises for the file's sake."""
        record = {
            "v": _VERSION, "t_ns": time.time_ns(), "mono_ns": time.monotonic_ns(), "run": self.run, "pid": os.getpid(),
            "event": event, **self._rank, **fields,
        }  # fmt: skip
        with self._lock:
            for listener in self._listeners:
                listener(record)
            if self._early is not None:
                self._early.append(record)
            else:
                self._write(record)

    def keep_in(self, directory: Path) -> None:
        """From now on write to `<directory>/<run>/<host>-<pid>.jsonl`, beginning with what was emitted before.

        A command that only looks never calls this, and so writes nothing.
        """
        early, self._early = self._early or [], None
        file = directory / self.run / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        if not file.parent.is_dir():
            _prune(directory)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            return  # read-only or full: the run goes on without a log
        for record in early:
            self._write(record)

    def close(self) -> None:
        """Close the file. Never raises: a network file system may tell of a full disk only now."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _write(self, record: dict[str, Any]) -> None:
        if self._fd is None:
            return
        try:
            os.write(self._fd, (json.dumps(record, default=str) + "\n").encode())
        except OSError:
            self.close()


def _prune(directory: Path) -> None:
    """Make room for one more run: keep the newest, and all of the last day, which may still be written. Never raises."""
    runs = []
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            with contextlib.suppress(OSError):  # another process prunes as well
                runs.append((path.stat().st_mtime, path))
    for age, old in sorted(runs, reverse=True)[_KEPT_RUNS - 1 :]:
        if time.time() - age > _LIVE_S:
            shutil.rmtree(old, ignore_errors=True)
