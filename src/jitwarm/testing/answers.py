"""Faults after which the compile process can still answer, and is as good as before."""

import resource
import sys
import threading

from jitwarm.contract.kernel import Outcome
from jitwarm.errors import Skipped, Unresolved
from jitwarm.testing.fault import a_fault
from jitwarm.testing.limits import limited_memory, open_until_none_is_left

_MEGABYTE = 1 << 20
_N_MEGABYTES = 8


class UnpicklableError(Exception):
    """An exception that no `pickle` carries to another process."""

    def __init__(self) -> None:
        super().__init__("held a lock")
        self.lock = threading.Lock()


class WithoutTextError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("this error has no text")


class PanicException(BaseException):
    """An exception that `except Exception` does not catch."""


@a_fault("failed", "ValueError: tile does not divide", is_harmless=True)
def raises() -> None:
    """Raises an exception, as a compiler does that refuses its input."""
    raise ValueError("tile does not divide")


@a_fault("failed", "UnpicklableError: held a lock", is_harmless=True)
def raises_unpicklable() -> None:
    """Raises an exception that cannot be pickled."""
    raise UnpicklableError


@a_fault("failed", "WithoutTextError: (its text cannot be made", is_harmless=True)
def raises_without_text() -> None:
    """Raises an exception whose `str()` raises another."""
    raise WithoutTextError


@a_fault("failed", "characters are left out here", is_harmless=True)
def raises_megabytes() -> None:
    """Raises an exception whose text is eight megabytes, as compilers do that quote all of their input."""
    raise ValueError("x" * (_N_MEGABYTES * _MEGABYTE) + " is no tile")


@a_fault("failed", "RecursionError", is_harmless=True)
def recurses_without_end() -> None:
    """Recurses in Python until the interpreter refuses."""
    _deeper(0)


def _deeper(depth: int) -> int:
    return _deeper(depth + 1) + 1


@a_fault("failed", "SystemExit: no driver", is_harmless=True)
def exits() -> None:
    """Calls `sys.exit`, as command-line tools do that were made into libraries."""
    sys.exit("no driver")


@a_fault("failed", "KeyboardInterrupt")
def raises_an_interrupt() -> None:
    """Raises `KeyboardInterrupt`, though nobody interrupted."""
    raise KeyboardInterrupt


@a_fault("failed", "PanicException: called `Option::unwrap()` on a `None` value")
def panics() -> None:
    """Raises a `BaseException` that is no `Exception`, as extensions in Rust do."""
    raise PanicException("called `Option::unwrap()` on a `None` value")


@a_fault("failed", "GeneratorExit")
def raises_generator_exit() -> None:
    """Raises `GeneratorExit` outside of any generator."""
    raise GeneratorExit


@a_fault("failed", "the compile process ran out of memory", is_deadly=True)
def eats_memory() -> None:
    """Allocates Python objects until there is no memory left, under a limit of its own, and raises `MemoryError`."""
    eaten: list[bytes] = []
    with limited_memory(resource.RLIMIT_AS):
        while True:
            eaten.append(bytes(_MEGABYTE))


@a_fault("failed", "Too many open files")
def exhausts_descriptors() -> None:
    """Opens files until the process may open no more, never closes them, and raises."""
    open_until_none_is_left()


@a_fault("skipped", "the autotuner would skip it", is_harmless=True)
def is_skipped() -> None:
    """Raises `jitwarm.Skipped`: no fault, but an answer."""
    raise Skipped("the autotuner would skip it")


@a_fault("unresolved", "needs a device", is_harmless=True)
def is_unresolved() -> None:
    """Raises `jitwarm.Unresolved`: no fault, but an answer."""
    raise Unresolved("needs a device", "warm it elsewhere")


@a_fault("compiled")
def returns_nonsense() -> object:
    """Builds nothing, and returns an object that is no `jitwarm.Outcome`."""
    return object()


@a_fault("compiled")
def lies() -> object:
    """Says that it compiled, and has written nothing."""
    return Outcome.COMPILED


@a_fault("compiled")
def prints_megabytes() -> None:
    """Prints eight megabytes, half of them to stderr, and goes on."""
    for _ in range(40_000):
        sys.stdout.write(f"stdout {'x' * 100}\n")
        sys.stderr.write(f"stderr {'x' * 100}\n")
