"""`flock` with a deadline.

The kernel frees a lock when its holder dies, however it dies. Lock files are never unlinked: unlinking lets two processes
hold "the" lock at once, and leaves stale handles on NFS.
"""

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jitwarm.errors import LockTimeoutError

_POLL_S = 0.02
# What an NFS without a lock daemon, or a network file system that knows no locks, answers.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def has_locks(directory: Path) -> bool:
    """Whether the file system of `directory` knows `flock`.

    Raises:
        OSError: No file can be made there.
    """
    with tempfile.TemporaryFile(dir=directory) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno in _NO_LOCKS:
                return False
            raise
    return True


@contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[int]:
    """Hold the exclusive lock of `path`; the file is made if need be and stays.

    Yields:
        Its descriptor. Another process that is given it holds the lock as well, should this one be killed.

    Raises:
        LockTimeoutError: It was not free within `timeout_s`.
        OSError: The file cannot be made.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(fd, path, time.monotonic() + timeout_s)
        try:
            yield fd
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing would leave it to a process that was forked meanwhile
    finally:
        os.close(fd)


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
