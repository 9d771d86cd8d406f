"""One run, wired: settings, plugins, store, planner, runner and report meet here and nowhere else."""

import contextlib
import dataclasses
import difflib
import os
import platform
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor
from functools import cache
from pathlib import Path
from typing import Any

from jitwarm.contract.backend import Backend, TargetScope
from jitwarm.contract.kernel import Kernel, Outcome, RegisteredKernel
from jitwarm.contract.keys import decode_key
from jitwarm.contract.target import Target
from jitwarm.deadlines import Deadline
from jitwarm.device import may_have_device, target_of
from jitwarm.engine.agreement import Alone, Group
from jitwarm.engine.compiler import BuiltinPolicy
from jitwarm.engine.container import memory_for_each_bytes, usable_cpus
from jitwarm.engine.elsewhere import OVER
from jitwarm.engine.executors import ExecutorIsolation, n_in_flight
from jitwarm.engine.isolation import ChildIsolation
from jitwarm.engine.plan import Plan, PlannedKernel, PlannedKey, make_plan
from jitwarm.engine.prefetch import Task, in_order_of_readiness
from jitwarm.engine.processes import Limits
from jitwarm.engine.report import Report, ReportBuilder
from jitwarm.engine.runner import announce, run
from jitwarm.engine.schedule import ExpectedSeconds, Item, first_of_each_first, longest_first
from jitwarm.engine.tuning import Tuning
from jitwarm.engine.workers import Workers
from jitwarm.environment import compiler_variables
from jitwarm.errors import (
    SettingsError,
    UsageError,
    text_of,
)
from jitwarm.events import EventLog
from jitwarm.listing import Listing
from jitwarm.monitor import ExpectedKernel, ExpectedKey, Monitor, described
from jitwarm.registry import RefusedPlugin, Registry
from jitwarm.settings import Asked, matches
from jitwarm.store import Recorder, Store, TunedStore
from jitwarm.tracing import Explanation, noted

# Each holds a compiler and the plugin's imports, half a gigabyte and more.
_MAX_WORKERS = 16
_LAST_PRIORITY = 19


class Session:
    """One run over one configuration, one target and one store.

    Args:
        asked: Configuration and settings.
        target: What to build for; None takes the settings' target, else this machine's GPU.
        root: The store's directory, over the settings' one. Then the compilers' caches are moved there even if the
            environment names others: the directory is to hold everything.
        listeners: Called with each event.
        prepare_thread: Called first in each thread in which a plugin is called, e.g. to choose the GPU.
        rank: Written into each event.
        n_ranks: Processes on this node that warm up at the same time, and share its processors.
        executor: Builds the keys on other hosts; None builds them in compile processes here. It stays open. Then, too, the
            compilers' caches are moved under the root: what hosts send is put there.

    Side effects: sets the compilers' cache variables in `os.environ`, unless `manage_caches` is off.
    """

    def __init__(
        self,
        asked: Asked,
        target: Target | None = None,
        *,
        root: Path | None = None,
        listeners: Iterable[Callable[[dict[str, Any]], None]] = (),
        prepare_thread: Callable[[], None] = lambda: None,
        rank: int | None = None,
        n_ranks: int = 1,
        executor: Executor | None = None,
    ) -> None:
        if executor and not (asked.settings.isolate and asked.settings.manage_caches):
            raise UsageError(
                "keys cannot be built on hosts while JITWARM_ISOLATE or JITWARM_MANAGE_CACHES is off",
                "what hosts build is put into the store, and loaded from there",
            )
        self.asked = asked
        self._started = time.monotonic()
        self.root = Path(os.path.normpath((root or asked.settings.root).absolute()))
        self.log = EventLog(asked.settings.run_id, rank)
        self._builder = ReportBuilder()
        for listener in (self._builder.add, *listeners):
            self.log.subscribe(listener)
        self._deadline = Deadline(asked.settings.plan_timeout_s, prepare_thread)
        self.registry = Registry(asked.settings.admits_plugin, self._refused, self._policy_error, self._deadline)
        self.registry.load_builtin()
        self._insists = root is not None or executor is not None
        self._place_caches(insist=self._insists)
        toolchains = tuple(backend.toolchain() for backend in self.registry.backends if not backend.missing())
        self.target = dataclasses.replace(
            target_of(target, asked.settings, self.registry.backends), toolchains=toolchains
        )
        self.asked = _with_learned(asked, self.registry.backends, self.target)
        self.kernels: list[RegisteredKernel] = []
        self.meet: Callable[[], Group] = Alone
        self._tuning: Tuning | None = self._make_tuning(prepare_thread)
        self._n_ranks = n_ranks
        self._executor = executor
        self._workers = Workers(self._modules_of, self.log.emit, self._limits())
        self._background: threading.Thread | None = None
        self._isolation = self._make_isolation() if asked.settings.isolate else None
        self._policy = BuiltinPolicy(
            self.registry.backends, self.log.emit, asked.settings.lock_timeout_s, self._isolation
        )
        self.registry.add_builtin_policy(self._policy)
        self._listing = Listing(self.asked, self.target, self.registry, self._policy, self._deadline)

    @property
    def explanations(self) -> dict[str, list[Explanation]]:
        """Which inputs reach each key, by kernel id; empty unless `plan` was asked to explain."""
        return self._listing.explanations

    @property
    def report(self) -> Report:
        """What is known so far."""
        return self._builder.report

    def discover(self) -> list[RegisteredKernel]:
        """Load the installed plugins and ask each for its kernels."""
        self.log.emit("run_start", target=str(self.target), root=str(self.root), on_device=self._on_device())
        self.log.emit("config", config=dataclasses.asdict(self.asked.config))
        self.registry.load_installed()
        self.log.emit("plugins_left_out", plugins=self.registry.left_out)
        backends = self.registry.backends
        self.log.emit(
            "backends",
            plugins={backend.name: self.registry.owner_of(backend.name) for backend in backends},
            caches={name: place for backend in backends for name, place in backend.cache_variables.items()},
        )
        self.log.emit("versions", versions=self._versions())
        self.log.emit("environment", variables=compiler_variables())
        self._place_caches(insist=self._insists)
        self._check_extra()
        self.kernels = self.registry.kernels(self.asked.config, self.target)
        self._policy.know(self.kernels)
        return self.kernels

    def plan(self, kernel_glob: str = "*", *, explains: bool = False, will_run: bool = False) -> Plan:
        """List the keys of the kernels that match.

        Args:
            kernel_glob: Over kernel ids.
            explains: Also collect which inputs reach each key, into `explanations`.
            will_run: `run` follows; where nothing is built yet, compile processes begin with their imports meanwhile.

        Raises:
            UsageError: Kernels were found, but none matches.
        """
        self._listing.explains = explains
        kernels = self.kernels or self.discover()
        chosen = [kernel for kernel in kernels if matches(kernel.id, [kernel_glob])]
        artifacts, unknown = self.registry.artifacts(self.asked.config, self.target)
        artifacts = [artifact for artifact in artifacts if matches(artifact.id, [kernel_glob])]
        if not chosen and not artifacts and (kernels or kernel_glob != "*"):
            refused = [f"plugin {plugin.name} was refused: {plugin.reason}" for plugin in self.registry.refused]
            ids = ", ".join(kernel.id for kernel in kernels)
            hint = "; ".join([f"kernels are {ids}" if ids else "no kernel is installed", *refused])
            raise UsageError(f"no kernel matches {kernel_glob!r}", hint)
        if will_run and not self._executor and not any(self.root.glob("manifest/*.json")):
            self.prestart(chosen)
        plan = make_plan(chosen, self._listing.keys_in_time, self.target)
        announce(plan, self.log.emit)
        if self._tuning:
            self._tuning.plan(artifacts, unknown)
        if will_run:
            self._note_regions(plan)
        return plan

    def _note_regions(self, plan: Plan) -> None:
        """Write which inputs reach each key, for whoever reads the log."""
        for kernel in plan.kernels:
            keys = [(key.text, key.label) for key in kernel.keys]
            with contextlib.suppress(Exception):  # a value whose `repr` raises, say: a log never fails a start
                for key, found in zip(kernel.keys, noted(keys, self._listing.traces.pop(kernel.id, ())), strict=True):
                    self.log.emit("key_regions", kernel=kernel.id, digest=key.digest, **found)

    def prestart(self, kernels: Iterable[RegisteredKernel], *, wait: bool = False) -> None:
        """Let the compile processes for kernels begin with their imports; with `wait`, until these are done.

        Raises:
            WorkersUnavailableError: With `wait`, no process can be started.
        """
        if not isinstance(self._isolation, ChildIsolation):
            return
        setups = {(kernel.backend, kernel.plugin): kernel for kernel in kernels}
        for (backend, _), kernel in setups.items():
            setup = self._isolation.job(kernel, "", self.target)
            self._workers.prestart(setup, backend)
            if wait:
                self._workers.await_start(setup, backend)

    def run(self, plan: Plan) -> Report:
        """Make every key of `plan` warm.

        Raises:
            StoreError: The store cannot be used; nothing was compiled.
        """
        store = self._open_store()
        keys = self._scheduled(plan, store)
        self._set_budget(keys)
        ready = self._as_they_are_built(keys)
        try:
            run(ready, self._compile, self.log.emit)
            self.tune()
        finally:
            if isinstance(ready, Generator):
                ready.close()  # nothing more is begun
            if isinstance(self._isolation, ExecutorIsolation):
                self._isolation.close()
            self._workers.close()
            self.log.emit("run_end")
        return self.report

    def tune(self) -> None:
        """Apply tuned artifacts, and tune what is not kept; once, together with the ranks that `meet` finds.

        `run` ends with it. Whoever cannot run calls it all the same, where other ranks may be waiting.
        """
        tuning, self._tuning = self._tuning, None
        if tuning:
            tuning.run(self.meet)

    def monitor(self, plan: Plan) -> Monitor:
        """The monitor of this process, which knows what this run has made warm; it is armed when it is entered."""
        recorder = Recorder(self.root, {"run": self.log.run, "target": str(self.target)})
        return Monitor(
            self.registry.backends,
            self.log.emit,
            mode=self.asked.settings.monitor,
            expected=[self._expected(kernel) for kernel in plan.kernels],
            target=self.target,
            record=lambda event, replay: recorder.append({**event, "replay": replay}),
        )

    def specializations(self, record: RegisteredKernel, planned: PlannedKernel, function: object) -> set[str]:
        """What the keys of a kernel are compiled for, as text, if `function` is what it compiles; else nothing."""
        backend = next((backend for backend in self.registry.backends if backend.owns(record.kernel)), None)
        if backend is None or not backend.compiles(record.kernel, function):
            return set()
        with self._policy.pinned(record.kernel, self.target):
            return {described(backend.specialization(record.kernel, self._value(planned, key))) for key in planned.keys}

    def finish(self) -> None:
        """Close the event log and end what is left; what goes on in the background does so at its end."""
        if self._background is None:
            self._workers.close()
            self.log.close()

    def finish_in_background(self, plan: Plan) -> None:
        """Build what the budget left out, if the settings say so: in one process of the lowest priority, into the store.

        Nothing is loaded, so this process is not disturbed; the next start finds it, and so does a compiler that looks on disk
        before it compiles. Ends with this process.
        """
        rows = {(kernel.id, row.digest): row.error for kernel in self.report.kernels.values() for row in kernel.rows}
        late = [item for item in plan.keys if rows.get((item[0].id, item[1].digest)) in OVER]
        if not (self.asked.settings.finish_in_background and late and self._builds_ahead):
            return
        self._policy.elsewhere.lift_budget()
        if self._isolation:
            self._isolation.ends_at = None
        self._workers.reopen(dataclasses.replace(self._workers.limits, nice=_LAST_PRIORITY))
        tasks = self._tasks(first_of_each_first(late))
        self._background = threading.Thread(
            target=self._build_late, args=(tasks,), name="jitwarm: background", daemon=True
        )
        self._background.start()

    def _build_late(self, tasks: Sequence[Task[Item]]) -> None:
        self.log.emit("background_start", n=len(tasks))
        try:
            for _ in in_order_of_readiness(tasks, self._policy.build_ahead, 1, self._policy.patience_s):
                pass
        finally:
            self.log.emit("background_end")
            self._background = None
            self.finish()

    def _expected(self, planned: PlannedKernel) -> ExpectedKernel:
        """A kernel of the plan with how its keys have ended."""
        record = next(kernel for kernel in self.kernels if kernel.id == planned.id)
        rows = {row.digest: row for row in self.report.kernels[planned.id].rows}
        keys = tuple(
            ExpectedKey(
                key.digest, key.label, self._value(planned, key), rows[key.digest].outcome, rows[key.digest].error
            )
            for key in planned.keys
        )
        return ExpectedKernel(
            record, keys, self._listing.domains.get(planned.id, ()), planned.problem[1] if planned.problem else ""
        )

    def _make_tuning(self, prepare_thread: Callable[[], None]) -> Tuning:
        settings = self.asked.settings
        return Tuning(
            self.asked.config,
            self.target,
            TunedStore(self.root, settings.lock_timeout_s),
            self.log.emit,
            Deadline(settings.tune_timeout_s, prepare_thread, "JITWARM_TUNE_TIMEOUT_S"),
            has_device=self._on_device(),
            may_tune=settings.tune == "auto",
            reason_to_skip=self._reason_not_to_tune,
        )

    def _reason_not_to_tune(self, artifact_id: str) -> str:
        settings = self.asked.settings
        if matches(artifact_id, settings.disable):
            return "disabled by JITWARM_DISABLE"
        return "JITWARM_TUNE is off" if settings.tune == "off" else ""

    def _modules_of(self, backend_name: str) -> Sequence[str]:
        """What a compile process for a backend imports first; asked late, when every plugin's backends are known."""
        return next((backend.modules for backend in self.registry.backends if backend.name == backend_name), ())

    def _make_isolation(self) -> ChildIsolation | ExecutorIsolation:
        settings = self.asked.settings
        here = ChildIsolation(
            self._workers,
            self.asked.config,
            self.root,
            self.log.run,
            settings.key_timeout_s,
            self.registry.owner_of,
            self.log.emit,
        )
        if self._executor is None:
            return here
        return ExecutorIsolation(
            self._executor,
            here,
            self.root,
            settings.key_timeout_s,
            self._n_workers,
            self.registry.backends,
            cache(self.registry.is_installed),
            self.log.emit,
        )

    def _limits(self) -> Limits:
        """What each compile process may take: its part of this container's memory."""
        settings = self.asked.settings
        memory_bytes = settings.worker_memory_bytes or memory_for_each_bytes(self._n_workers * self._n_ranks)
        return Limits(memory_bytes, settings.worker_max_jobs)

    @property
    def _n_workers(self) -> int:
        """Compile processes at once on this machine."""
        return self.asked.settings.workers or min(_MAX_WORKERS, max(1, usable_cpus() // self._n_ranks))

    def _set_budget(self, keys: Sequence[Item]) -> None:
        """From when on nothing more is built, and which keys are not."""
        settings, elsewhere = self.asked.settings, self._policy.elsewhere
        if settings.time_budget_s is not None:
            elsewhere.ends_at = self._started + settings.time_budget_s
            if self._isolation:
                self._isolation.ends_at = elsewhere.ends_at
        if settings.max_keys is not None:
            elsewhere.left_out = frozenset((kernel.id, key.text) for kernel, key in keys[settings.max_keys :])

    def _scheduled(self, plan: Plan, store: Store) -> list[Item]:
        """The keys in the order in which they are begun."""
        settings = self.asked.settings
        if settings.time_budget_s is not None or settings.max_keys is not None:
            return first_of_each_first(plan.keys)
        of_backend = {backend.name: backend.typical_compile_s for backend in self.registry.backends}
        return longest_first(plan.keys, ExpectedSeconds(store.timings(), of_backend))

    def _as_they_are_built(self, keys: Sequence[Item]) -> Iterable[Item]:
        """The keys in the order in which they can be loaded; built ahead in compile processes, if there are any."""
        if not self._builds_ahead:
            return keys
        n_at_once = n_in_flight(self._executor, self._n_workers) if self._executor else self._n_workers
        return in_order_of_readiness(self._tasks(keys), self._policy.build_ahead, n_at_once, self._policy.patience_s)

    @property
    def _builds_ahead(self) -> bool:
        """Where a site decides how keys are compiled, it is asked key by key: what it would fetch must not be built."""
        return self._isolation is not None and not self.registry.has_policy("jitwarm_compile")

    def _tasks(self, items: Sequence[Item]) -> list[Task[Item]]:
        return [Task(item, self._job(*item)) for item in items]

    def _job(self, planned: PlannedKernel, key: PlannedKey) -> Any:
        try:
            return self._policy.job(self._kernel(planned), self._value(planned, key), self.target)
        except Exception:  # noqa: BLE001 - it is raised again, and told, when the key is compiled
            return None

    def _kernel(self, planned: PlannedKernel) -> Kernel:
        return next(kernel.kernel for kernel in self.kernels if kernel.id == planned.id)

    def _value(self, planned: PlannedKernel, key: PlannedKey) -> Any:
        return key.key if key.key is not None else decode_key(self._kernel(planned), key.text)

    def _compile(self, planned: PlannedKernel, key: PlannedKey) -> Outcome:
        """One key, asked of the policies."""
        asked = {"kernel": self._kernel(planned), "kernel_id": planned.id, "key": self._value(planned, key)}
        with self._policy.active(), TargetScope(self.target):
            return self.registry.first_answer(  # type: ignore[no-any-return]  # the runner checks what a policy answered
                "jitwarm_compile", **asked, target=self.target
            )

    def _open_store(self) -> Store:
        """Open the store and mend what a move broke, then record its path."""
        caches = {name for backend in self.registry.backends for name in backend.cache_variables.values()}
        store = Store(self.root, caches)
        with store.lock("store", self.asked.settings.lock_timeout_s):
            if store.moved_from:
                for backend in self.registry.backends:
                    backend.relocate(self.root)
            store.settle()
        self._policy.use(store)
        self.log.keep_in(self.root / "events")
        if not store.has_locks:
            self.log.emit("no_locks", root=str(self.root))
        return store

    def _place_caches(self, *, insist: bool) -> None:
        """Point each compiler's own disk cache under the root, before the compiler is imported; a user's value wins."""
        if not self.asked.settings.manage_caches:
            return
        for backend in self.registry.backends:
            for variable, directory in backend.cache_variables.items():
                if insist:
                    os.environ[variable] = str(self.root / directory)
                else:
                    os.environ.setdefault(variable, str(self.root / directory))

    def _check_extra(self) -> None:
        """Refuse values for a plugin that does not exist: a misspelt name would be silent otherwise."""
        known = {*self.registry.plugins, *self.registry.left_out, *(refused.name for refused in self.registry.refused)}
        for name in self.asked.config.extra:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"plugins are {', '.join(sorted(known))}"
                raise SettingsError(f"values are given for plugin {name!r}, which is not installed", hint)

    def _versions(self) -> dict[str, Any]:
        """Of what could make two starts differ."""
        return {
            "python": platform.python_version(),
            "plugins": {plugin.name: plugin.distribution for plugin in self.registry.plugins.values()},
            "toolchains": {toolchain.backend: toolchain.full_text() for toolchain in self.target.toolchains},
        }

    def _on_device(self) -> bool:
        return any(backend.device_target() == self.target for backend in self.registry.backends if may_have_device())

    def _refused(self, refused: RefusedPlugin) -> None:
        self.log.emit("plugin_refused", plugin=refused.name, distribution=refused.distribution, reason=refused.reason)

    def _policy_error(self, plugin: str, hook: str, error: BaseException) -> None:
        self.log.emit("policy_error", plugin=plugin, hook=hook, error=text_of(error))


def _with_learned(asked: Asked, backends: Iterable[Backend], target: Target) -> Asked:
    """What serving asked for of functions that nobody declares goes to their backends' own plugins, as their values."""
    extra = dict(asked.config.extra)
    for backend in backends:
        if found := asked.learned.for_backend(backend.name, str(target)):
            extra[backend.name] = {**extra.get(backend.name, {}), "learned": found}
    return dataclasses.replace(asked, config=dataclasses.replace(asked.config, extra=extra))
