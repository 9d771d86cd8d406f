"""Running out of things without taking them from the machine."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HEADROOM_BYTES = 256 << 20


@contextmanager
def limited_memory(kind: int) -> Iterator[None]:
    """While entered, this process may take 256 MiB more than it has; a stricter limit stays.

    Args:
        kind: `resource.RLIMIT_AS` or `resource.RLIMIT_DATA`.
    """
    soft, hard = resource.getrlimit(kind)
    limits = [limit for limit in (_taken_bytes() + _HEADROOM_BYTES, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def open_until_none_is_left() -> None:
    """Open files and keep them.

    Raises:
        OSError: There are as many as may be.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    while True:
        os.dup(null)


def _taken_bytes() -> int:
    """Address space that this process has."""
    n_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return n_pages * resource.getpagesize()
