"""Has keys built in other processes: within the budget, and never again those that killed or hung their compiler."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jitwarm.contract.backend import Backend
from jitwarm.contract.kernel import Outcome, RegisteredKernel
from jitwarm.contract.target import Target
from jitwarm.engine.jobs import Answer, Origin
from jitwarm.errors import (
    CompileError,
    JitwarmError,
    KeyTimeoutError,
    QuarantinedError,
    Skipped,
    Unresolved,
    WorkerDiedError,
)
from jitwarm.store import Store

OVER_BUDGET = "the time budget ended before it was built (JITWARM_TIME_BUDGET_S)"
OVER_MAX_KEYS = "it is not among the first keys, which this start may build (JITWARM_MAX_KEYS)"
OVER = (OVER_BUDGET, OVER_MAX_KEYS)

# What a failure in another process is here.
_FAILURES: dict[str, type[JitwarmError]] = {"unresolved": Unresolved, "skipped": Skipped}


@dataclass(frozen=True)
class Build:
    """One key on its way: what every step needs to know of it."""

    record: RegisteredKernel
    key: Any
    text: str
    target: Target
    involved: Sequence[Backend]
    fingerprint: str
    origin: Origin

    @property
    def toolchain(self) -> str:
        """The versions that build it, one line."""
        return "; ".join(backend.toolchain().full_text() for backend in self.involved)


@dataclass(frozen=True)
class Built:
    """A key that another process has built into the store.

    Attributes:
        n_compiles: Compiler runs.
        outcome: What the kernel itself said there; None where it left that to the compilers' counters.
    """

    n_compiles: int = 0
    outcome: Outcome | None = None

    @property
    def how(self) -> Outcome:
        """What the kernel said; else whether a compiler ran."""
        return self.outcome or (Outcome.COMPILED if self.n_compiles else Outcome.LOADED)


class Isolation(Protocol):
    """Builds keys somewhere else than in this process."""

    @property
    def limits(self) -> Mapping[str, float]:
        """What one key may take, by the name of the setting that raises it."""

    def build(
        self, kernel: RegisteredKernel, key: str, target: Target, *, origin: Origin, lock: int | None = None
    ) -> Answer:
        """Build one key, into the store. An answer whose status is `local` means: compile it here.

        Args:
            kernel: Whose key it is.
            key: Key text.
            target: What to build for.
            origin: What it must be built from.
            lock: The descriptor of the key's lock, for whoever builds to hold as well.

        Raises:
            KeyTimeoutError: The compiler hung.
            WorkerDiedError: The compiler died.
        """


class Elsewhere:
    """What is built in other processes in one run.

    Args:
        isolation: Those processes; None builds everything here.
        emit: Receives `build_start`, `built_in_child`, `quarantined` and `local`.

    Attributes:
        ends_at: On the clock of `time.monotonic`; from then on nothing is built, and what is in the store is still loaded.
        left_out: `(kernel id, key text)` of keys that are loaded if they are in the store, and not built.
    """

    def __init__(self, isolation: Isolation | None, emit: Callable[..., None]) -> None:
        self.ends_at: float | None = None
        self.left_out: frozenset[tuple[str, str]] = frozenset()
        self._isolation = isolation
        self._emit = emit
        self._local: set[str] = set()
        self._lock = threading.Lock()

    def is_local(self, record: RegisteredKernel) -> bool:
        """Whether the keys of a kernel are compiled in this process."""
        return self._isolation is None or record.id in self._local or getattr(record.kernel, "is_local", False)

    def make_local(self, record: RegisteredKernel) -> bool:
        """From now on compile the keys of a kernel here. Returns whether that is new."""
        with self._lock:
            is_new = record.id not in self._local
            self._local.add(record.id)
        return is_new

    def lift_budget(self) -> None:
        """From now on build whatever is asked."""
        self.ends_at, self.left_out = None, frozenset()

    def refuse_over_budget(self, build: Build) -> None:
        """Let a key that may not be built be the outcome `skipped`.

        Raises:
            Skipped: With the setting to raise.
        """
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            raise Skipped(OVER_BUDGET)
        if (build.record.id, build.text) in self.left_out:
            raise Skipped(OVER_MAX_KEYS)

    def build(self, build: Build, store: Store, lock: int | None) -> Built | None:
        """Have a key built in another process.

        Returns:
            How that ended; None if the key must be built here.

        Raises:
            Skipped: The budget has ended.
            Exception: Why it cannot be built.
        """
        self.refuse_over_budget(build)
        if self._isolation is None or self.is_local(build.record):
            return None
        if found := store.quarantined(build.fingerprint, self._isolation.limits):
            path, why = found
            raise QuarantinedError(f"not tried again, because earlier {why}", f"remove {path} to have it tried")
        self._emit("build_start", kernel=build.record.id, key=build.text)
        try:
            answer = self._isolation.build(build.record, build.text, build.target, origin=build.origin, lock=lock)
        except (KeyTimeoutError, WorkerDiedError) as exc:
            if store.find(build.fingerprint) is not None:
                return Built(1)  # it had published what it built: only its answer, with the number of runs, is missing
            self._quarantine(build, store, exc)
            raise
        return self._built(build, answer)

    def _quarantine(self, build: Build, store: Store, exc: KeyTimeoutError | WorkerDiedError) -> None:
        why = exc.message.partition("\n")[0]
        name = "key_timeout_s" if isinstance(exc, KeyTimeoutError) else "worker_memory_bytes"
        limit = self._isolation.limits.get(name) if self._isolation else None
        record = {
            "kernel": build.record.id,
            "key": build.text,
            "target": str(build.target),
            "toolchain": build.toolchain,
            "why": why,
            "limits": {} if limit is None else {name: limit},
        }
        path = store.quarantine(build.fingerprint, record)
        self._emit("quarantined", kernel=build.record.id, key=build.text, why=why, file=str(path))

    def _built(self, build: Build, answer: Answer) -> Built | None:
        if answer.status == "local":
            if self.make_local(build.record):
                self._emit("local", kernel=build.record.id, why=answer.error)
            return None
        if answer.status != "built":
            raise _FAILURES.get(answer.status, CompileError)(answer.error)
        if answer.n_compiles:
            self._emit(
                "built_in_child",
                kernel=build.record.id,
                key=build.text,
                n=answer.n_compiles,
                seconds=answer.seconds,
            )
        return Built(answer.n_compiles, Outcome(answer.outcome) if answer.outcome else None)
