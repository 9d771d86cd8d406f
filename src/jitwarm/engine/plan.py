"""The plan: kernels and a configuration become one ordered, de-duplicated list of keys. Pure: no I/O, no compiler."""

import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jitwarm.contract.kernel import Outcome, RegisteredKernel
from jitwarm.contract.keys import encode_key, format_key, key_digest
from jitwarm.contract.target import Target
from jitwarm.deadlines import is_shutdown
from jitwarm.errors import JitwarmError, KeyTimeoutError, Skipped, Unresolved, shortened, text_of


@dataclass(frozen=True)
class PlannedKey:
    """One key to make warm.

    Attributes:
        digest: Names the key in every process and on every host.
        text: The canonical key text.
        label: The key for people.
        key: The object itself; not compared, and not part of the plan as data.
    """

    digest: str
    text: str
    label: str
    key: Any = field(compare=False, repr=False, default=None)


@dataclass(frozen=True)
class PlannedKernel:
    """A kernel's keys, or why they could not be listed.

    Attributes:
        id: Kernel id.
        backend: Backend name, or None.
        distribution: Name and version of the declaring package.
        keys: In the order in which they will be built.
        notes: What a reviewer should know, one sentence each.
        problem: `(outcome, error)` where listing failed.
        import_path: `module:attribute` where another process finds the kernel, if not through its plugin.
    """

    id: str
    backend: str | None
    distribution: str
    keys: tuple[PlannedKey, ...] = ()
    notes: tuple[str, ...] = ()
    problem: tuple[Outcome, str] | None = None
    import_path: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything that one run will make warm."""

    target: Target
    kernels: tuple[PlannedKernel, ...]

    @property
    def n_keys(self) -> int:
        """Number of keys."""
        return sum(len(kernel.keys) for kernel in self.kernels)

    @property
    def keys(self) -> list[tuple["PlannedKernel", "PlannedKey"]]:
        """Every key with its kernel, in order."""
        return [(kernel, key) for kernel in self.kernels for key in kernel.keys]


Listing = tuple[Sequence[Any], Sequence[str]]


def make_plan(
    kernels: Iterable[RegisteredKernel], list_keys: Callable[[RegisteredKernel], Listing], target: Target
) -> Plan:
    """Ask each kernel for its keys; one that fails is a row of its own, and the others go on.

    Args:
        kernels: In the order in which they will be built.
        list_keys: A kernel's keys and notes. May raise.
        target: What will be built for.
    """
    return Plan(target, tuple(_planned(kernel, list_keys) for kernel in kernels))


def outcome_of(exc: BaseException) -> Outcome:
    """The outcome that an exception stands for."""
    if isinstance(exc, Unresolved):
        return Outcome.UNRESOLVED
    if isinstance(exc, KeyTimeoutError):
        return Outcome.TIMED_OUT
    return Outcome.SKIPPED if isinstance(exc, Skipped) else Outcome.FAILED


def describe_error(exc: BaseException) -> str:
    """An exception for a row: our own say what to do; others are named with their class."""
    if isinstance(exc, JitwarmError):
        return shortened(str(exc))
    return text_of(exc)


def _planned(kernel: RegisteredKernel, list_keys: Callable[[RegisteredKernel], Listing]) -> PlannedKernel:
    try:
        keys, notes = list_keys(kernel)
        planned = tuple(_distinct(kernel.id, keys))
    except (Exception, SystemExit) as exc:
        if is_shutdown(exc):
            raise
        # Whatever a kernel raises, the others go on.
        place = "" if isinstance(exc, JitwarmError) else f"\n  at: {_place(exc)}"
        problem = (outcome_of(exc), describe_error(exc) + place)
        return PlannedKernel(kernel.id, kernel.backend, kernel.distribution, problem=problem)
    return PlannedKernel(
        kernel.id, kernel.backend, kernel.distribution, planned, tuple(notes), import_path=kernel.import_path
    )


def _place(exc: BaseException) -> str:
    """File and line that raised."""
    last = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def _distinct(kernel_id: str, keys: Iterable[Any]) -> Iterable[PlannedKey]:
    """Keys without repeats, told apart by text."""
    by_text: dict[str, Any] = {}
    for key in keys:
        by_text.setdefault(encode_key(key), key)
    return (PlannedKey(key_digest(kernel_id, text), text, format_key(key), key) for text, key in by_text.items())
