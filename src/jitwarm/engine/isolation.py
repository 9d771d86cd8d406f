"""What the policy asks to build elsewhere: jobs for the compile processes, within what is left of the start's budget."""

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.contract.target import Target
from jitwarm.engine.elsewhere import OVER_BUDGET
from jitwarm.engine.jobs import Answer, Job, Origin
from jitwarm.engine.workers import Workers
from jitwarm.errors import KeyTimeoutError, Skipped, WorkerDiedError, WorkersUnavailableError


def once_more(ask: Callable[[], Answer]) -> Answer:
    """Ask a compile process, and if it dies a fresh one: what ended it may have been meant for another process."""
    try:
        return ask()
    except WorkerDiedError:
        return ask()


class ChildIsolation:
    """Builds each key in a compile process, and once more in a fresh one if that dies.

    Args:
        workers: The compile processes.
        config: What the kernels were listed for.
        root: The store.
        run: Names the run's event log.
        key_timeout_s: Longest that one key may take.
        owner_of: The plugin that yields a backend, by the backend's name.
        emit: Receives `isolation_unavailable`, at most once.
        places_caches: Whether the compilers' caches are below the root.
    """

    def __init__(
        self,
        workers: Workers,
        config: WarmupConfig,
        root: Path,
        run: str,
        key_timeout_s: float,
        owner_of: Callable[[str], str],
        emit: Callable[..., None],
        *,
        places_caches: bool,
    ) -> None:
        self.ends_at: float | None = None
        self._workers = workers
        self._config = dataclasses.asdict(config)
        self._root = str(root)
        self._run = run
        self._key_timeout_s = key_timeout_s
        self._owner_of = owner_of
        self._emit = emit
        self._places_caches = places_caches
        self._is_available = True
        self._lock = threading.Lock()

    @property
    def limits(self) -> dict[str, float]:
        """What one key may take."""
        memory_bytes = self._workers.limits.memory_bytes
        limits: dict[str, float] = {"key_timeout_s": self._key_timeout_s}
        return limits if memory_bytes is None else {**limits, "worker_memory_bytes": memory_bytes}

    def build(
        self, kernel: RegisteredKernel, key: str, target: Target, *, origin: Origin, lock: int | None = None
    ) -> Answer:
        """Build one key; see `engine.elsewhere.Isolation`.

        Raises:
            Skipped: The budget ended first.
            KeyTimeoutError: The compiler hung.
            WorkerDiedError: The compiler died twice.
        """
        del origin  # a compile process is made from what this one is made from
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            raise Skipped(OVER_BUDGET)
        if not self._is_available:
            return Answer("local", error="no compile process can be started")
        job = self.job(kernel, key, target)
        try:
            return once_more(lambda: self._ask(job, kernel.backend, lock))
        except WorkersUnavailableError as exc:
            with self._lock:
                was_available, self._is_available = self._is_available, False
            if was_available:
                self._emit("isolation_unavailable", error=str(exc))
            return Answer("local", error=exc.message)

    def setup(self, plugin: str, target: Target) -> Job:
        """What a compile process for a plugin begins with, if its kernels are of no other plugin's backend."""
        places = self._places_caches
        return Job(plugin, "", "", "", str(target), self._config, self._root, self._run, places_caches=places)

    def job(self, kernel: RegisteredKernel, key: str, target: Target) -> Job:
        """The job that builds one key into this run's store."""
        owner = self._owner_of(kernel.backend or "")
        return Job(
            plugin=kernel.plugin,
            backend_plugin="" if owner == kernel.plugin else owner,
            kernel=kernel.id,
            key=key,
            target=str(target),
            config=self._config,
            root=self._root,
            run=self._run,
            distribution=kernel.distribution,
            import_path=kernel.import_path,
            places_caches=self._places_caches,
        )

    def _ask(self, job: Job, backend: str | None, lock: int | None) -> Answer:
        left_s = self.ends_at - time.monotonic() if self.ends_at is not None else float("inf")
        try:
            return self._workers.build(job, backend, min(self._key_timeout_s, max(left_s, 0.0)), lock)
        except KeyTimeoutError as exc:
            if left_s < self._key_timeout_s:
                raise Skipped(OVER_BUDGET) from exc
            raise
