"""What a compile may change in its process, put back before the next one: for the worker of `jitwarm.child`."""

import locale
import os
import resource
import signal
import sys
from pathlib import Path

from jitwarm.environment import CACHE_VARIABLES

# Read by programs that a compiler starts, or fatal to a process that did not ask for them. Others belong to the libraries.
_SIGNALS = (signal.SIGCHLD, signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)


class ProcessState:
    """The state of this process now: directory, umask, locale, variables, signals, and where stdout and stderr go.

    Only the main thread may make one, and restore it.
    """

    def __init__(self) -> None:
        self._directory = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._output = os.dup(1)
        self._streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._locale = locale.setlocale(locale.LC_ALL)
        self._environ = dict(os.environ)
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore(self) -> bool:
        """Put back what has changed.

        Returns:
            False where this process is no good for another compile: something cannot be put back, or there may not be enough
            descriptors for one more.
        """
        try:
            os.fchdir(self._directory)
            for fd in (1, 2):
                os.dup2(self._output, fd)
            os.umask(self._umask)
            if locale.setlocale(locale.LC_ALL) != self._locale:
                locale.setlocale(locale.LC_ALL, self._locale)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._handlers.items():
                if handler is not None and signal.getsignal(number) != handler:
                    signal.signal(number, handler)
        except (OSError, ValueError, locale.Error):
            return False
        self._restore_streams()
        self._restore_variables()
        return _has_descriptors()

    def _restore_streams(self) -> None:
        for fd, (name, stream) in enumerate(self._streams.items(), start=1):
            if stream.closed:
                self._streams[name] = os.fdopen(fd, "w", buffering=1, errors="replace", closefd=False)
            setattr(sys, name, self._streams[name])

    def _restore_variables(self) -> None:
        """Variables keep the values that the server gave them, and compilers' caches stay where they are.

        What a library adds when it is imported, in the middle of a compile, stays: it does so once, and counts on it. So does
        a list that it makes longer, like `PATH`.
        """
        for name, value in self._environ.items():
            now = os.environ.get(name)
            if now != value and (now is None or not _is_longer(now, value)):
                os.environ[name] = value
        for name in CACHE_VARIABLES.keys() - self._environ.keys():
            os.environ.pop(name, None)


def _is_longer(now: str, before: str) -> bool:
    """Whether a list of paths still has all that it had."""
    return set(before.split(os.pathsep)) <= set(now.split(os.pathsep))


def _has_descriptors() -> bool:
    """Whether less than half of the descriptors that may be open are."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        n_open = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:  # not one is left
        return False
    return limit == resource.RLIM_INFINITY or n_open < limit // 2
