"""What compiled after a start, written down by the servers and read by `jitwarm learn`.

`<root>/learned/<host>-<pid>.jsonl`: one JSON object per line, one `O_APPEND` write each, one file per process, so that ranks do
not meet. Bounded: a process keeps its last two files of some megabytes, a store the newest files.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_VERSION = 1
_MAX_BYTES = 2 << 20
_KEPT_FILES = 256


class Recorder:
    """Appends misses of this process.

    Args:
        root: The store.
        common: What each line says besides: run, rank, target.
    """

    def __init__(self, root: Path, common: Mapping[str, Any]) -> None:
        self._file = root / "learned" / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self._common = {"v": _VERSION, "host": socket.gethostname(), **common}
        self._lock = threading.Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            OSError: The store cannot be written.
        """
        line = json.dumps({"t_ns": time.time_ns(), **self._common, **record}, default=str) + "\n"
        with self._lock:
            self._make_room(len(line))
            fd = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)

    def _make_room(self, n_bytes: int) -> None:
        if not self._file.parent.is_dir():
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._file.exists():
            _prune(self._file.parent)
        elif self._file.stat().st_size + n_bytes > _MAX_BYTES:
            self._file.replace(self._file.with_name(f"{self._file.stem}.old.jsonl"))


def read_records(root: Path) -> Iterator[dict[str, Any]]:
    """Every miss that a store's servers have written down; a line that a killed process did not end is left out."""
    for file in sorted((root / "learned").glob("*.jsonl")):
        yield from _lines(file)


def _lines(file: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError:
        return  # another process has pruned it
    for line in lines:
        with contextlib.suppress(ValueError):
            record = json.loads(line) if line.endswith("\n") else None
            if isinstance(record, dict) and record.get("v") == _VERSION:
                yield record


def _prune(directory: Path) -> None:
    """Keep the newest files. Never raises: another process prunes as well."""
    aged = []
    for file in directory.glob("*.jsonl"):
        with contextlib.suppress(OSError):
            aged.append((file.stat().st_mtime, file))
    for _, file in sorted(aged, reverse=True)[_KEPT_FILES - 1 :]:
        with contextlib.suppress(OSError):
            file.unlink()
