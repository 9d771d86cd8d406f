"""One run, wired: settings, plugins, store, planner, runner and report meet here and nowhere else."""

import contextlib
import dataclasses
import difflib
import os
import platform
import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from jitwarm.building import Building
from jitwarm.contract.backend import Backend, TargetScope
from jitwarm.contract.kernel import Kernel, Outcome, RegisteredKernel
from jitwarm.contract.keys import decode_key
from jitwarm.contract.target import Target
from jitwarm.contract.tuned import RegisteredArtifact
from jitwarm.deadlines import Deadline
from jitwarm.device import may_have_device, target_of
from jitwarm.engine.agreement import Alone, Group
from jitwarm.engine.elsewhere import OVER
from jitwarm.engine.modules import LateModules
from jitwarm.engine.plan import Plan, PlannedKernel, PlannedKey, make_plan
from jitwarm.engine.prefetch import Prefetch
from jitwarm.engine.report import Report, ReportBuilder
from jitwarm.engine.runner import announce, run
from jitwarm.engine.schedule import Item
from jitwarm.engine.tuning import Tuning
from jitwarm.environment import compiler_variables, place_caches
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
        role: What this process is beside those that serve; empty for a command, and for those.
        loaded_before: Fingerprints of what was loaded before a server measured its memory: everything else is counted, and may
            be limited. None where nobody measures.
        left_to_others: Tells of a key's fingerprint whether another process will build it, so that it is waited for.
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
        role: str = "",
        loaded_before: Collection[str] | None = None,
        left_to_others: Callable[[str], bool] | None = None,
        executor: Executor | None = None,
    ) -> None:
        if executor and not (asked.settings.isolate and asked.settings.manage_caches):
            raise UsageError(
                "keys cannot be built on hosts while JITWARM_ISOLATE or JITWARM_MANAGE_CACHES is off",
                "what hosts build is put into the store, and loaded from there",
            )
        started = time.monotonic()
        self.asked = asked
        self.root = Path(os.path.normpath((root or asked.settings.root).absolute()))
        self.log = EventLog(asked.settings.run_id, rank)
        self._builder = ReportBuilder()
        for listener in (self._builder.add, *listeners):
            self.log.subscribe(listener)
        self._deadline = Deadline(asked.settings.plan_timeout_s, prepare_thread)
        self.registry = Registry(asked.settings.admits_plugin, self._refused, self._policy_error, self._deadline)
        self.registry.load_builtin()
        self._insists = root is not None or executor is not None
        self._place_caches()
        toolchains = tuple(backend.toolchain() for backend in self.registry.backends if not backend.missing())
        self.target = dataclasses.replace(
            target_of(target, asked.settings, self.registry.backends), toolchains=toolchains
        )
        self.asked = _with_learned(asked, self.registry.backends, self.target)
        self.kernels: list[RegisteredKernel] = []
        self.meet: Callable[[], Group] = Alone
        # A process beside those that serve has nobody to agree with.
        self._tuning = None if role else self._make_tuning(prepare_thread)
        self._is_remote = executor is not None
        self._building = Building(
            self.asked, self.root, self.registry, self.log, n_ranks=n_ranks, executor=executor, started=started
        )
        self._builds_alone = left_to_others is None
        if left_to_others is not None:
            self._building.left_to_others = lambda job: left_to_others(job.fingerprint)
        self._role = role
        self._policy = self._building.policy
        self._late: LateModules | None = None
        if loaded_before is not None:
            self._late = LateModules(self.root, asked.settings.max_late_module_bytes, loaded_before)
            self._policy.before_load = self._late.take
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
        self.log.emit(
            "run_start", target=str(self.target), root=str(self.root), on_device=self._on_device(), role=self._role
        )
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
        if self._place_caches():
            self._building.begin_anew()
        self._check_extra()
        self.kernels = self.registry.kernels(self.asked.config, self.target)
        self._policy.know(self.kernels)
        return self.kernels

    def plan(self, kernel_glob: str = "*", *, explains: bool = False, will_run: bool = False) -> Plan:
        """List the keys of the kernels that match.

        Args:
            kernel_glob: Over kernel ids.
            explains: Also collect which inputs reach each key, into `explanations`.
            will_run: `run` follows. Where nothing is built yet, and by nobody else, compile processes begin to import plugins
                before this process does.

        Raises:
            UsageError: Kernels were found, but none matches.
        """
        self._listing.explains = explains
        imports_ahead = will_run and self._builds_alone and self._nothing_is_built()
        if imports_ahead and not self.kernels:
            self._prestart_plugins(kernel_glob)
        kernels = self.kernels or self.discover()
        chosen = [kernel for kernel in kernels if matches(kernel.id, [kernel_glob])]
        artifacts, unknown = self._artifacts(kernel_glob)
        if not chosen and not artifacts and (kernels or kernel_glob != "*"):
            refused = [f"plugin {plugin.name} was refused: {plugin.reason}" for plugin in self.registry.refused]
            ids = ", ".join(kernel.id for kernel in kernels)
            hint = "; ".join([f"kernels are {ids}" if ids else "no kernel is installed", *refused])
            raise UsageError(f"no kernel matches {kernel_glob!r}", hint)
        if imports_ahead:
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

    def prestart(self, kernels: Sequence[RegisteredKernel], *, wait: bool = False) -> None:
        """Let the compile processes for kernels begin with their imports: those of most kernels, as processors allow.

        Args:
            kernels: Of any plugins.
            wait: For all of them, until the imports are done.

        Raises:
            WorkersUnavailableError: With `wait`, no process can be started.
        """
        self._building.prestart(kernels, self.target, wait=wait)

    def _nothing_is_built(self) -> bool:
        return not self._is_remote and not any(self.root.glob("manifest/*.json"))

    def _prestart_plugins(self, kernel_glob: str) -> None:
        """The same before the plugins are loaded here: whose kernels match can only be guessed, and how many they have not."""
        plugin, colon, _ = kernel_glob.partition(":")
        names = [name for name in self.registry.admitted() if not colon or matches(name, [plugin])]
        self._building.prestart_plugins(names, self.target)

    def run(self, plan: Plan) -> Report:
        """Make every key of `plan` warm.

        Raises:
            StoreError: The store cannot be used; nothing was compiled.
        """
        store = self._open_store()
        ready = self._building.as_they_are_built(self._building.scheduled(plan, store), self._job)
        try:
            run(ready, self._compile, self.log.emit)
            self.tune()
        finally:
            if isinstance(ready, Generator):
                ready.close()  # nothing more is begun
            self._building.end_run()
            if self._late:
                self.log.emit("modules_late", n=self._late.n, bytes=self._late.n_bytes)
            self.log.emit("run_end")
        return self.report

    def prefetch(self, plan: Plan) -> tuple[Prefetch[Item], list[str]]:
        """What builds the keys of `plan` that the store lacks, when it is begun, and their fingerprints; nothing is loaded.

        Raises:
            StoreError: The store cannot be used.
        """
        store = self._open_store()
        keys = self._building.scheduled(plan, store) if self._building.is_ahead else []
        jobs = {key.digest: job for kernel, key in keys if (job := self._job(kernel, key)) is not None}
        missing = {digest: job for digest, job in jobs.items() if store.find(job.fingerprint) is None}
        lacking = [item for item in keys if item[1].digest in missing]
        prefetch = self._building.prefetch(lacking, lambda _, key: missing[key.digest])
        return prefetch, [job.fingerprint for job in missing.values()]

    def load_ready(self, plan: Plan) -> set[str]:
        """Load what the store holds of `plan` into this process, and build nothing. Returns the fingerprints of what was loaded.

        Raises:
            StoreError: The store cannot be used.
        """
        self._open_store(keeps_log=False)
        self._building.build_nothing()
        loaded: set[str] = set()
        self._policy.before_load = lambda entry: loaded.add(entry.fingerprint)
        for kernel, key in plan.keys:
            with contextlib.suppress(Exception):  # told when its turn comes
                self._compile(kernel, key)
        return loaded

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
        if not self._building.is_in_background:
            self._building.end_run()
            self.log.close()

    def finish_in_background(self, plan: Plan) -> None:
        """Build what the budget left out, if the settings say so: in one process of the lowest priority, into the store."""
        rows = {(kernel.id, row.digest): row.error for kernel in self.report.kernels.values() for row in kernel.rows}
        late = [item for item in plan.keys if rows.get((item[0].id, item[1].digest)) in OVER]
        if self.asked.settings.finish_in_background and late and self._building.is_ahead:
            self._building.finish_in_background(late, self._job, self.finish)

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

    def _artifacts(self, glob: str) -> tuple[list[RegisteredArtifact], dict[str, str]]:
        """The tuned artifacts that match, and the plugins of which they are not known; none in a process that does not tune."""
        if not self._tuning:
            return [], {}
        artifacts, unknown = self.registry.artifacts(self.asked.config, self.target)
        return [artifact for artifact in artifacts if matches(artifact.id, [glob])], unknown

    def _reason_not_to_tune(self, artifact_id: str) -> str:
        settings = self.asked.settings
        if matches(artifact_id, settings.disable):
            return "disabled by JITWARM_DISABLE"
        return "JITWARM_TUNE is off" if settings.tune == "off" else ""

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

    def _open_store(self, *, keeps_log: bool = True) -> Store:
        """Open the store and mend what a move broke, then record its path."""
        caches = {name for backend in self.registry.backends for name in backend.cache_variables.values()}
        store = Store(self.root, caches)
        with store.lock("store", self.asked.settings.lock_timeout_s):
            if store.moved_from:
                for backend in self.registry.backends:
                    backend.relocate(self.root)
            store.settle()
        self._policy.use(store)
        if keeps_log:
            self.log.keep_in(self.root / "events")
        if not store.has_locks:
            self.log.emit("no_locks", root=str(self.root))
        return store

    def _place_caches(self) -> bool:
        """Of the backends that are known by now; see `environment.place_caches`."""
        if not self.asked.settings.manage_caches:
            return False
        known = {name: place for backend in self.registry.backends for name, place in backend.cache_variables.items()}
        return place_caches(known, str(self.root), insist=self._insists)

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
