"""Faults that never come back: whoever waits must stop waiting."""

import ctypes
import os
import signal
import time

from jitwarm.testing.fault import a_fault
from jitwarm.testing.processes import start_process

_KILLED = "the compiler was killed"
_LONG_S = 3600.0


@a_fault("timed_out", _KILLED)
def sleeps() -> None:
    """Waits for something that does not happen."""
    time.sleep(_LONG_S)


@a_fault("timed_out", _KILLED)
def spins() -> None:
    """Computes for ever."""
    while True:
        pass


@a_fault("timed_out", _KILLED)
def holds_the_interpreter_lock() -> None:
    """Waits in C without giving the interpreter lock back: no other thread of the process runs, and no Python handler."""
    ctypes.PyDLL(None).sleep(int(_LONG_S))


@a_fault("timed_out", _KILLED)
def stops_itself() -> None:
    """Sends itself `SIGSTOP`, as a debugger does."""
    os.kill(os.getpid(), signal.SIGSTOP)


@a_fault("timed_out", _KILLED)
def ignores_signals_and_sleeps() -> None:
    """Ignores every signal that can be ignored, and waits for ever."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(_LONG_S)


@a_fault("timed_out", _KILLED)
def starts_a_process_and_sleeps() -> None:
    """Starts a process that outlives it, and waits for ever."""
    start_process()
    time.sleep(_LONG_S)
