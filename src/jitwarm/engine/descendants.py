"""Processes that come from one: what they use, and those that a compiler has left behind.

The latter are given to the mother of the compile processes, and end with her.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02
_TIMEOUT_S = 1.0


def adopt_orphans() -> None:
    """From now on a descendant of this process whose parent ends is given to it, and not to the system's first process."""
    _control(_PR_SET_CHILD_SUBREAPER, 1)


@contextlib.contextmanager
def ending_with(parent: int) -> Iterator[None]:
    """While entered, this process is killed when its parent ends; at once if it has ended already.

    For where it cannot look: imports take seconds, and write caches, which somebody may have removed by then.
    """
    _control(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    yield
    _control(_PR_SET_PDEATHSIG, 0)


def _control(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


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


def born(pid: int) -> int:
    """When a process began, in the kernel's ticks; -1 for none. Process ids repeat, pairs of both do not."""
    try:
        return int(_status(Path(f"/proc/{pid}/stat"))[19])
    except (OSError, IndexError):
        return -1


def processor_seconds(pid: int) -> float:
    """What a process has used, with its living descendants and those that were waited for; 0.0 where nobody can see it."""
    ticks = sum(int(number) for status in family(pid).values() for number in status[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> dict[int, list[str]]:
    """A process and its living descendants: what the kernel says of each, from its state on."""
    all_of_them = _processes()
    found, parents = set(), {pid}
    while parents:
        found |= parents
        parents = {child for child, status in all_of_them.items() if int(status[1]) in parents}
    return {one: all_of_them[one] for one in found if one in all_of_them}


def _children() -> list[int]:
    me = str(os.getpid())
    return [pid for pid, status in _processes().items() if status[1] == me]


def _processes() -> dict[int, list[str]]:
    found = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            found[int(place.parent.name)] = _status(place)
    return {pid: status for pid, status in found.items() if status}


def _status(stat: Path) -> list[str]:
    """State, parent, ...: what follows the name, which may hold anything."""
    return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
