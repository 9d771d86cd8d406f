"""The priority of processes that nobody waits for: everything else goes first.

Outside of containers Linux divides processors among sessions first ("autogroup"), and `nice` counts among the processes of one
session only: a niced process in a session of its own takes as much as a server. So a session is given a priority, too. Unlike
`nice`, that can be taken back.
"""

import ctypes
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

from jitwarm.engine.descendants import family

_LAST = 19
# ioprio_set(IOPRIO_WHO_PROCESS, 0, class idle): no library has it, and the number of the call is the architecture's.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IDLE = 3 << 13
_TRIES, _POLL_S = 10, 0.05


def give_way(nice: int = _LAST) -> None:
    """Let everything else have processors first, and with the last priority disks; whatever this process starts does as well."""
    with suppress(OSError):
        os.nice(nice)
    _set_session(os.getpid(), os.nice(0))
    if nice == _LAST and (number := _IOPRIO_SET.get(platform.machine())):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).syscall(number, 1, 0, _IDLE)


def come_forward() -> None:
    """Take back what can be: the sessions of this process, and of those that it has started, are as others again."""
    for pid in family(os.getpid()):
        _set_session(pid, 0)


def follow_parent() -> None:
    """To be called in a process that begins a session: a new one is as any other, whatever its parent's is."""
    with suppress(OSError, ValueError):
        for _ in range(2):  # the parent may come forward in between, and have looked for this process too early
            _set_session(os.getpid(), session_priority(os.getppid()))


def session_priority(pid: int) -> int:
    """Of the session in which a process is: -20 to 19, as `nice`.

    Raises:
        OSError, ValueError: There is no such process, or sessions have none here.
    """
    return int(_place(pid).read_bytes().rpartition(b" ")[2])


def _set_session(pid: int, nice: int) -> None:
    for _ in range(_TRIES):
        try:
            if session_priority(pid) != nice:
                _place(pid).write_text(str(nice), encoding="ascii")
        except BlockingIOError:  # the kernel lets users do so ten times a second, all of them together
            time.sleep(_POLL_S)
        except (OSError, ValueError):
            return
        else:
            return


def _place(pid: int) -> Path:
    return Path(f"/proc/{pid}/autogroup")
