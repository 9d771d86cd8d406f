"""A thread that goes on only while another one waits: what it does must not slow that one down."""

import builtins
import sys
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

_LOOK_S = 0.005
_PAUSE_S = 0.02
# Between two looks. One module may take longer: it is not left in its middle.
_GRANT_S = 0.05
_BUSY = 0.5
# Longest pause: another thread may wait for a module that is half imported here, and the leader spin until that one is done.
_LONGEST_S = 1.0
# Python's lock changes hands 5 ms after it is asked for: a leader that was just busy elsewhere would wait as long each time.
_SWITCH_S = 1e-4
_ENTERED: ContextVar["Behind"] = ContextVar("jitwarm_behind")


class Behind:
    """Holds back the imports of whoever enters it while its maker, the leader, needs a processor.

    Threads share the interpreter's lock whatever their priority, so one that imports takes time from one that copies weights.
    From one that waits for a disk or a network it takes none. Made by the leader; entered by another thread, and by those that
    run in its context.

    Side effects: while entered and not released, `builtins.__import__` is replaced, and the switch interval is short. (A finder
    in `sys.meta_path` would hold the lock of all imports while it pauses.)
    """

    def __init__(self) -> None:
        self._clock: int | None = None
        with suppress(AttributeError, OSError):  # a system that does not tell: then nothing is held back
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._delays = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._released = threading.Event()
        self._goes_on_until = 0.0
        self._switch_s = sys.getswitchinterval()
        self._import = builtins.__import__
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._token = _ENTERED.set(self)
        with self._lock:
            if not self._released.is_set():
                sys.setswitchinterval(_SWITCH_S)
                self._import, builtins.__import__ = builtins.__import__, self._imported
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
        _ENTERED.reset(self._token)

    def release(self) -> None:
        """From now on nothing is held back, and nothing is replaced, even if whoever entered never leaves. Again is harmless."""
        with self._lock:
            self._released.set()
            if builtins.__import__ == self._imported:
                builtins.__import__ = self._import
                sys.setswitchinterval(self._switch_s)

    def _imported(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """As `__import__`, with a pause before it where this thread is not the leader."""
        if _ENTERED.get(None) is self and name not in sys.modules:
            self.wait()
        return self._import(name, *args, **kwargs)

    def wait(self) -> None:
        """Come back when the leader waits for something, or is one no more; at the latest after a second."""
        ends_at = time.monotonic() + _LONGEST_S
        while self._clock is not None and time.monotonic() >= self._goes_on_until:
            began, wanted = time.monotonic(), self._wanted_s()
            if self._released.wait(_LOOK_S):
                return
            is_free = self._wanted_s() - wanted < _BUSY * (time.monotonic() - began)
            if is_free or time.monotonic() >= ends_at:
                self._goes_on_until = time.monotonic() + _GRANT_S
            elif self._released.wait(_PAUSE_S):
                return

    def _wanted_s(self) -> float:
        """For how long the leader has had a processor, or has waited for one.

        Between two of these this thread must sleep: beside it the leader would wait for the interpreter's lock.
        """
        if self._clock is None:
            return 0.0
        try:
            used = time.clock_gettime(self._clock)
        except OSError:  # it has ended
            self._clock = None
            return 0.0
        with suppress(OSError, ValueError, IndexError):
            return used + int(self._delays.read_bytes().split()[1]) / 1e9
        return used
