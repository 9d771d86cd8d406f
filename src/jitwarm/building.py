"""How the keys of a run are built: in compile processes or on hosts, within the budget, and what goes on in the background."""

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import cache
from pathlib import Path
from typing import Any

from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.contract.target import Target
from jitwarm.engine.compiler import BuiltinPolicy
from jitwarm.engine.container import memory_for_each_bytes, usable_cpus
from jitwarm.engine.executors import ExecutorIsolation, n_in_flight
from jitwarm.engine.isolation import ChildIsolation
from jitwarm.engine.plan import Plan, PlannedKernel, PlannedKey
from jitwarm.engine.prefetch import Prefetch, Task
from jitwarm.engine.processes import Limits
from jitwarm.engine.schedule import ExpectedSeconds, Item, first_of_each_first, longest_first
from jitwarm.engine.workers import Workers
from jitwarm.events import EventLog
from jitwarm.registry import Registry
from jitwarm.settings import Asked
from jitwarm.store import Store

# Each holds a compiler and the plugin's imports, half a gigabyte and more.
_MAX_WORKERS = 16
_LAST_PRIORITY = 19

JobOf = Callable[[PlannedKernel, PlannedKey], Any]


class Building:
    """The compile processes of one run, or its hosts, and the policy that asks them.

    Args:
        asked: Configuration and settings.
        root: The store's directory.
        registry: Knows the backends and who owns them.
        log: Receives the events.
        n_ranks: Processes on this node that warm up at the same time, and share its processors.
        executor: Builds on other hosts; None builds here.
        started: When the budget began, on the clock of `time.monotonic`.

    Attributes:
        policy: Compiles and loads one key; asked last.
        left_to_others: Tells of a job whether somebody else will build it, so that it is waited for.
    """

    def __init__(
        self,
        asked: Asked,
        root: Path,
        registry: Registry,
        log: EventLog,
        *,
        n_ranks: int,
        executor: Executor | None,
        started: float,
    ) -> None:
        self.left_to_others: Callable[[Any], bool] = lambda _: False
        self._settings = asked.settings
        self._config = asked.config
        self._root = root
        self._registry = registry
        self._log = log
        self._n_ranks = n_ranks
        self._executor = executor
        self._started = started
        self._workers = Workers(log.emit, self._limits())
        self._background: threading.Thread | None = None
        self._isolation = self._make_isolation() if asked.settings.isolate else None
        self.policy = BuiltinPolicy(registry.backends, log.emit, asked.settings.lock_timeout_s, self._isolation)

    @property
    def n_workers(self) -> int:
        """Compile processes at once on this machine."""
        return self._settings.workers or min(_MAX_WORKERS, max(1, usable_cpus() // self._n_ranks))

    @property
    def _n_ahead(self) -> int:
        """Plugins that are imported beside this process: with more imports than processors the first key waits longer."""
        return max(1, self.n_workers - 1)

    @property
    def is_ahead(self) -> bool:
        """Whether keys are built before they are asked for; where a site's policy decides how, what it fetches must not be."""
        return self._isolation is not None and not self._registry.has_policy("jitwarm_compile")

    @property
    def is_in_background(self) -> bool:
        """Whether something goes on after the run."""
        return self._background is not None

    def prestart(self, kernels: Sequence[RegisteredKernel], target: Target, *, wait: bool = False) -> None:
        """Let compile processes begin with their imports; see `Session.prestart`."""
        if not isinstance(self._isolation, ChildIsolation):
            return
        jobs = [self._isolation.job(kernel, "", target) for kernel in kernels]
        setups = {job.setup: job for job in jobs}
        for name, _ in Counter(job.setup for job in jobs).most_common(len(jobs) if wait else self._n_ahead):
            self._workers.prestart(setups[name])
        if wait:
            for kernel, job in zip(kernels, jobs, strict=True):
                self._workers.await_start(job, kernel.backend)

    def prestart_plugins(self, names: Sequence[str], target: Target) -> None:
        """The same for plugins by name, before this process has loaded them."""
        if isinstance(self._isolation, ChildIsolation):
            for name in names[: self._n_ahead]:
                self._workers.prestart(self._isolation.setup(name, target))

    def begin_anew(self) -> None:
        """End compile processes that have begun, because they would differ from one that begins now."""
        self._workers.close()
        self._workers.reopen(self._workers.limits)

    def scheduled(self, plan: Plan, store: Store) -> list[Item]:
        """The keys in the order in which they are begun; from now on the budget counts."""
        settings = self._settings
        if settings.time_budget_s is not None or settings.max_keys is not None:
            keys = first_of_each_first(plan.keys)
        else:
            of_backend = {backend.name: backend.typical_compile_s for backend in self._registry.backends}
            keys = longest_first(plan.keys, ExpectedSeconds(store.timings(), of_backend))
        self._set_budget(keys)
        return keys

    def prefetch(self, keys: Sequence[Item], job_of: JobOf) -> Prefetch[Item]:
        """Builds keys ahead of whoever loads them."""
        return Prefetch(
            [Task(item, job_of(*item)) for item in keys],
            lambda job: not self.left_to_others(job) and self.policy.build_ahead(job),
            self.policy.patience_s,
        )

    def as_they_are_built(self, keys: Sequence[Item], job_of: JobOf) -> Iterable[Item]:
        """The keys in the order in which they can be loaded; built ahead in compile processes, if there are any."""
        if not self.is_ahead:
            return keys
        n_at_once = n_in_flight(self._executor, self.n_workers) if self._executor else self.n_workers
        return self.prefetch(keys, job_of).ready(n_at_once)

    def build_nothing(self) -> None:
        """From now on only what is in the store becomes warm, and nobody is waited for."""
        self.policy.elsewhere.ends_at = time.monotonic()

    def end_run(self) -> None:
        """Nothing more is built."""
        if isinstance(self._isolation, ExecutorIsolation):
            self._isolation.close()
        self._workers.close()

    def finish_in_background(self, keys: Sequence[Item], job_of: JobOf, then: Callable[[], None]) -> None:
        """Build keys in one process of the lowest priority, into the store; `then` is called at the end.

        Nothing is loaded, so this process is not disturbed; the next start finds it, and so does a compiler that looks on disk
        before it compiles. Ends with this process.
        """
        self.policy.elsewhere.lift_budget()
        if self._isolation:
            self._isolation.ends_at = None
        self._workers.reopen(dataclasses.replace(self._workers.limits, nice=_LAST_PRIORITY))
        prefetch = self.prefetch(first_of_each_first(keys), job_of)
        self._background = threading.Thread(
            target=self._build_late, args=(prefetch, len(keys), then), name="jitwarm: background", daemon=True
        )
        self._background.start()

    def _build_late(self, prefetch: Prefetch[Item], n: int, then: Callable[[], None]) -> None:
        self._log.emit("background_start", n=n)
        try:
            for _ in prefetch.ready(1):
                pass
        finally:
            self._log.emit("background_end")
            self._background = None
            then()

    def _set_budget(self, keys: Sequence[Item]) -> None:
        """From when on nothing more is built, and which keys are not."""
        settings, elsewhere = self._settings, self.policy.elsewhere
        if settings.time_budget_s is not None:
            elsewhere.ends_at = self._started + settings.time_budget_s
            if self._isolation:
                self._isolation.ends_at = elsewhere.ends_at
        if settings.max_keys is not None:
            elsewhere.left_out = frozenset((kernel.id, key.text) for kernel, key in keys[settings.max_keys :])

    def _make_isolation(self) -> ChildIsolation | ExecutorIsolation:
        here = ChildIsolation(
            self._workers,
            self._config,
            self._root,
            self._log.run,
            self._settings.key_timeout_s,
            self._registry.owner_of,
            self._log.emit,
            places_caches=self._settings.manage_caches,
        )
        if self._executor is None:
            return here
        return ExecutorIsolation(
            self._executor,
            here,
            self._root,
            self._settings.key_timeout_s,
            self.n_workers,
            self._registry.backends,
            cache(self._registry.is_installed),
            self._log.emit,
        )

    def _limits(self) -> Limits:
        """What each compile process may take: its part of this container's memory."""
        settings = self._settings
        memory_bytes = settings.worker_memory_bytes or memory_for_each_bytes(self.n_workers * self._n_ranks)
        return Limits(memory_bytes, settings.worker_max_jobs)
