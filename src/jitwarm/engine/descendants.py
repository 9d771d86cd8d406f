"""Processes that a compiler has left behind: they are given to the mother of the compile processes, and end with her."""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02
_TIMEOUT_S = 1.0


def adopt_orphans() -> None:
    """From now on a descendant of this process whose parent ends is given to it, and not to the system's first process."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """Kill the children of this process, and those which it is given meanwhile, until there is none. Takes a second at most."""
    deadline = time.monotonic() + _TIMEOUT_S
    while children := _children():
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_S)


def is_over(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet counts."""
    try:
        return _status(Path(f"/proc/{pid}/stat"))[0] in "ZX"
    except (OSError, IndexError):
        return Path("/proc/self/stat").exists()  # where there is no /proc, nobody knows


def _children() -> list[int]:
    me, found = str(os.getpid()), []
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):  # it has ended
            if _status(place)[1] == me:
                found.append(int(place.parent.name))
    return found


def _status(stat: Path) -> list[str]:
    """State, parent, ...: what follows the name, which may hold anything."""
    return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
