"""Starting processes as careless compilers do."""

import os
import sys
import time
from collections.abc import Callable
from subprocess import DEVNULL, Popen

_LONG_S = 3600


def start_process() -> None:
    """Start a program that runs for an hour, in the process group of this one, and print its number."""
    started = Popen(["sleep", str(_LONG_S)], stdin=DEVNULL)  # noqa: S603, S607 - whatever `sleep` there is
    say(started.pid)


def fork(do: Callable[[], object]) -> int:
    """Do something in a copy of this process, which then ends. Returns the copy's number."""
    pid = os.fork()
    if pid == 0:
        try:
            do()
        finally:
            os._exit(0)
    return pid


def wait_long() -> None:
    """Wait for an hour."""
    time.sleep(_LONG_S)


def say(pid: int) -> None:
    """Print the number of a process that was started."""
    sys.stdout.write(f"started process {pid}\n")
    sys.stdout.flush()
