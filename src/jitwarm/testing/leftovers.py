"""Faults that let the compile succeed, and leave something behind for the next one."""

import contextlib
import locale
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from jitwarm.testing.fault import a_fault
from jitwarm.testing.processes import fork, say, start_process, wait_long

_N_THREADS = 8


@a_fault("compiled")
def starts_a_process() -> None:
    """Leaves a process that runs for an hour."""
    start_process()


@a_fault("compiled")
def leaves_a_daemon() -> None:
    """Leaves a process in a session of its own, started by one that has ended, as daemons are."""

    def be_daemon() -> None:
        os.setsid()
        say(fork(wait_long))

    os.waitpid(fork(be_daemon), 0)


@a_fault("compiled")
def forks_and_both_go_on() -> None:
    """Calls `fork()` and returns in both processes."""
    os.fork()


@a_fault("compiled")
def leaves_threads() -> None:
    """Leaves eight threads that never end."""
    for _ in range(_N_THREADS):
        threading.Thread(target=threading.Event().wait).start()


@a_fault("compiled")
def kills_its_parent() -> None:
    """Kills the process that started its own."""
    mother = os.getppid()
    with contextlib.suppress(OSError):
        # A process that lost its parent is given to one that must not be killed.
        if b"jitwarm.child" in Path(f"/proc/{mother}/cmdline").read_bytes():
            os.kill(mother, signal.SIGKILL)


@a_fault("compiled")
def loses_its_directory() -> None:
    """Changes to a directory that is then removed."""
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)


@a_fault("compiled")
def changes_the_umask() -> None:
    """Lets everybody write the files that are created later."""
    os.umask(0)


@a_fault("compiled")
def changes_the_environment() -> None:
    """Moves the compilers' caches elsewhere, and removes the search path, for whatever is compiled later."""
    for name in ("TRITON_CACHE_DIR", "TILELANG_CACHE_DIR", "CUTE_DSL_CACHE_DIR"):
        os.environ[name] = str(Path(tempfile.gettempdir()) / "moved-by-a-fault")
    os.environ.pop("PATH", None)


@a_fault("compiled")
def changes_the_locale() -> None:
    """Sets the locale in which text is ASCII."""
    locale.setlocale(locale.LC_ALL, "C")


@a_fault("compiled")
def closes_its_output() -> None:
    """Closes stdout and stderr, so that the next two files that are opened receive what is printed."""
    os.close(1)
    os.close(2)


@a_fault("compiled")
def closes_its_streams() -> None:
    """Closes `sys.stdout` and replaces `sys.stderr`, after which `print` raises."""
    sys.stdout.close()
    sys.stderr = None  # as in a process without a console


@a_fault("compiled")
def ignores_its_children() -> None:
    """Lets the system collect the processes that it starts, so that nobody learns how a compiler ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


@a_fault("compiled")
def sets_an_alarm() -> None:
    """Has the system kill its process a second later, while something else is compiled."""
    signal.alarm(1)
