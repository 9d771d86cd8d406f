"""Faults of which the compile process dies, or after which nobody can understand it."""

import contextlib
import ctypes
import os
import resource
import signal
import stat
import sys

from jitwarm.testing.fault import a_fault
from jitwarm.testing.limits import limited_memory
from jitwarm.testing.processes import fork, say, start_process, wait_long

_ENDED = "the compile process ended: "
_STATUS = 3
_CHUNK_BYTES = 16 << 20
_STACK_BYTES = 1 << 20
_MAX_FD = 1 << 16


def _dump_no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@a_fault("failed", f"{_ENDED}exit status {_STATUS}", is_deadly=True)
def ends() -> None:
    """Ends its process without a word."""
    os._exit(_STATUS)


@a_fault("failed", f"{_ENDED}exit status 0", is_deadly=True)
def ends_as_if_all_were_well() -> None:
    """Ends its process with exit status 0, and has built nothing."""
    os._exit(0)


@a_fault("failed", f"{_ENDED}killed by SIGABRT", is_deadly=True)
def aborts() -> None:
    """Calls `abort()`, as a failed assertion in C++ does."""
    _dump_no_core()
    os.abort()


@a_fault("failed", f"{_ENDED}killed by SIGSEGV", is_deadly=True)
def segfaults() -> None:
    """Reads address 0."""
    _dump_no_core()
    ctypes.string_at(0)


@a_fault("failed", f"{_ENDED}killed by SIGSEGV", is_deadly=True)
def overflows_the_stack() -> None:
    """Recurses in C until the stack ends, as parsers do with deeply nested input."""
    _dump_no_core()
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (_STACK_BYTES, hard))
    ctypes.CDLL(None).regcomp(ctypes.create_string_buffer(1024), b"(" * _STACK_BYTES, 1)


@a_fault("failed", f"{_ENDED}killed by SIGKILL (out of memory?)", is_deadly=True)
def kills_itself() -> None:
    """Is killed by `SIGKILL`, as the kernel does with a process that takes the last memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@a_fault("failed", f"{_ENDED}killed by signal {signal.SIGRTMIN + 3}", is_deadly=True)
def dies_of_a_signal_without_a_name() -> None:
    """Is ended by a real-time signal."""
    os.kill(os.getpid(), signal.SIGRTMIN + 3)


@a_fault("failed", "LLVM ERROR: out of memory", is_deadly=True)
def eats_native_memory() -> None:
    """Allocates in C until there is no memory left, under a limit of its own, and aborts as LLVM does."""
    _dump_no_core()
    allocate = ctypes.CDLL(None).malloc
    allocate.restype = ctypes.c_void_p
    with limited_memory(resource.RLIMIT_AS):
        while allocate(ctypes.c_size_t(_CHUNK_BYTES)):
            pass
        os.write(2, b"LLVM ERROR: out of memory\n")
        os.abort()


@a_fault("failed", "ptxas: out of registers", is_deadly=True)
def prints_and_ends() -> None:
    """Prints a thousand lines to stderr, the last of which says why, and ends its process."""
    for i in range(1000):
        sys.stderr.write(f"line {i}\n")
    sys.stderr.write("ptxas: out of registers\n")
    os._exit(_STATUS)


@a_fault("failed", "ptxas: out of registers", is_deadly=True)
def prints_to_stdout_and_ends() -> None:
    """Prints why to stdout, and ends its process."""
    sys.stdout.write("ptxas: out of registers\n")
    os._exit(_STATUS)


@a_fault("failed", "ptxas: bad \ufffd", is_deadly=True)
def prints_binary_and_ends() -> None:
    """Prints what is no UTF-8 and would clear a terminal, and ends its process."""
    os.write(2, b"\x1b[2J\x00\x07\nptxas: bad \xff\xfe\n")
    os._exit(_STATUS)


@a_fault("failed", f"{_ENDED}exit status {_STATUS}", is_deadly=True)
def starts_a_process_and_ends() -> None:
    """Starts a process through the C library, which inherits what is not closed on exec, and ends its own."""
    os.system("sleep 3600 & echo started process $!")  # noqa: S605, S607 - as a C++ compiler does it
    os._exit(_STATUS)


@a_fault("failed", f"{_ENDED}exit status {_STATUS}", is_deadly=True)
def forks_and_ends() -> None:
    """Ends its process, while a copy of it, made by `fork()`, holds everything open that it had."""
    say(fork(wait_long))
    os._exit(_STATUS)


@a_fault("compiled", is_deadly=True)
def closes_every_descriptor() -> None:
    """Closes all files and sockets but the standard ones, as daemons do, and goes on: it builds, and cannot say so."""
    os.closerange(3, _MAX_FD)


@a_fault("failed", "the compile process closed its connection", is_deadly=True)
def closes_every_descriptor_and_sleeps() -> None:
    """Closes all files and sockets but the standard ones, and waits for ever."""
    os.closerange(3, _MAX_FD)
    start_process()
    wait_long()


@a_fault("failed", "answered what is no message", is_deadly=True)
def writes_garbage() -> None:
    """Writes bytes without meaning into every socket that it finds open, and goes on."""
    _write_to_sockets(b"\xde\xad\xbe\xef" * 64)


@a_fault("failed", "answered what is no answer", is_deadly=True)
def forges_an_answer() -> None:
    """Writes a message of the right form and without meaning into every socket that it finds open, and goes on."""
    body = b'{"colour": "blue"}'
    _write_to_sockets(len(body).to_bytes(8, "big") + body)


def _write_to_sockets(data: bytes) -> None:
    for fd in range(3, _MAX_FD):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, data)
