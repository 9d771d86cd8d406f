"""One early builder at a time on a node: its turn, what it will build, and what was built in this start."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jitwarm.early.progress import Progress
from jitwarm.engine.descendants import born
from jitwarm.store import write_json

_STALLED_S = 5.0


class Node:
    """What the builders of one node, and those who wait for their keys, know of one another.

    Args:
        root: The store's directory, which is there.
    """

    def __init__(self, root: Path) -> None:
        name = f"early-{socket.gethostname()}"
        self._lock = root / "locks" / f"{name}.lock"
        self._state = root / "locks" / f"{name}.json"
        self._manifest = root / "manifest"
        self._read: tuple[float, frozenset[str]] = (0.0, frozenset())
        self._builder = (0, 0)
        self._progress = Progress()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait, asleep, until no other process of this node builds early; then be the one. Ends with this process at the latest.

        Raises:
            OSError: The file system has no locks, or the file cannot be made.
        """
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # closing would leave it to a process that was forked meanwhile
        finally:
            os.close(fd)

    def done(self, start: str) -> list[str]:
        """The configurations for which all is built that can be, in one start."""
        state = self._load()
        return [str(name) for name in state.get("done", ())] if state.get("start") == start else []

    def announce(self, start: str, fingerprints: Iterable[str]) -> None:
        """Tell which keys will be built in this turn.

        Raises:
            StoreError: The disk is full, or read-only.
        """
        builder = {"pid": os.getpid(), "born": born(os.getpid())}
        planned = sorted(fingerprints)
        write_json(self._state, {"start": start, "planned": planned, "done": self.done(start), "builder": builder})

    def finish(self, start: str, configuration: str) -> None:
        """Tell that this turn is over.

        Raises:
            StoreError: The disk is full, or read-only.
        """
        write_json(self._state, {"start": start, "planned": [], "done": [*self.done(start), configuration]})

    def will_build(self, fingerprint: str) -> bool:
        """Whether the builder whose turn it is has this key on its list, has not built it yet, lives, and comes forward.

        It has the lowest priority: on a node that is busy with something else, whoever waits for it would wait as long as that.
        """
        is_awaited = fingerprint in self._planned() and not (self._manifest / f"{fingerprint}.json").exists()
        return is_awaited and self._is_taken() and not self._is_stalled()

    def _is_stalled(self) -> bool:
        """Whether for a while nobody has published a key, the plan is older than that, and the builder has hardly run."""
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in (self._state, self._manifest))
            return time.time() - max(newest, self._progress.last(*self._builder)) > _STALLED_S
        return True

    def _planned(self) -> frozenset[str]:
        try:
            changed = self._state.stat().st_mtime
        except OSError:
            return frozenset()
        if changed != self._read[0]:
            state = self._load()
            planned, builder = state.get("planned", ()), state.get("builder", {})
            self._builder = (int(builder.get("pid", 0)), int(builder.get("born", 0)))
            self._read = (changed, frozenset(planned if isinstance(planned, list) else ()))
        return self._read[1]

    def _is_taken(self) -> bool:
        """Whether somebody has the turn. The kernel frees the lock of a process that died."""
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: many ask at once
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(fd)
        return False

    def _load(self) -> Mapping[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if isinstance(state, dict):
                return state
        return {}
