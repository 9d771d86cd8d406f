"""`flock` with a deadline.

The kernel frees a lock when its holder dies, however it dies. Lock files are never unlinked: unlinking lets two processes
hold "the" lock at once, and leaves stale handles on NFS.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jitwarm.errors import LockTimeoutError

_POLL_S = 0.02


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the exclusive lock of `path`; the file is made if need be and stays.

    Raises:
        LockTimeoutError: It was not free within `timeout_s`.
        OSError: The file cannot be made.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(fd, path, time.monotonic() + timeout_s)
        yield
    finally:
        os.close(fd)  # closing frees the lock


def _acquire(fd: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockTimeoutError(
                    f"another process holds {path}",
                    "it is building the same key; raise JITWARM_LOCK_TIMEOUT_S if it needs longer",
                ) from None
            time.sleep(_POLL_S)
        else:
            return
