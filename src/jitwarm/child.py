"""The other side of `jitwarm.engine.workers`: `python -m jitwarm.child SOCKET`.

The mother forks a worker for each `fork` that she is asked, and for each `template` a process like herself that has also
imported one plugin, and the compilers of its kernels; their sockets come with the question. These start no thread and compile
nothing, so that a fork is safe. A worker wires a registry, the backends and the built-in policy for the one plugin that its jobs
name, and builds keys into the store.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from jitwarm.contract.backend import TargetScope
from jitwarm.contract.kernel import Outcome, RegisteredKernel
from jitwarm.contract.keys import decode_key
from jitwarm.contract.target import Target
from jitwarm.engine import wire
from jitwarm.engine.compiler import BuiltinPolicy
from jitwarm.engine.descendants import adopt_orphans, end_children, ending_with
from jitwarm.engine.hosts import INSTALL, require_same
from jitwarm.engine.jobs import Answer, Job
from jitwarm.engine.plan import describe_error, outcome_of
from jitwarm.engine.priority import follow_parent, give_way
from jitwarm.engine.process_state import ProcessState
from jitwarm.environment import place_caches
from jitwarm.errors import HostError, JitwarmError
from jitwarm.events import EventLog
from jitwarm.registry import Registry
from jitwarm.settings import read_config
from jitwarm.store import Store

_POLL_S = 1.0
_GRACE_S = 10.0  # to whoever waits for an answer, and kills this process when its time is over


def main() -> None:
    """Be a mother until the control socket closes; or build one key, in the foreground, and end."""
    if len(sys.argv) < 2:  # noqa: PLR2004 - program and socket
        sys.exit("jitwarm.child is started by jitwarm; nothing to do by hand")
    if sys.argv[1] == "--job":
        sys.exit(_build_one(Path(sys.argv[2])))
    _widen_affinity()
    follow_parent()
    _be_killed_first()
    adopt_orphans()
    _Mother(socket.socket(fileno=int(sys.argv[1]))).run()


class _Mother:
    """Forks, as the other side of the control socket asks; a mother or a template."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._parent = os.getppid()
        self._workers: set[int] = set()
        self._templates: dict[int, int] = {}  # by name: process id

    def run(self) -> None:
        """Serve until the other side is gone; then end every worker."""
        try:
            while self._is_wanted():
                if select.select([self._control], [], [], _POLL_S)[0] and not self._serve():
                    break
        finally:
            for pid in self._workers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            end_children()

    def _is_wanted(self) -> bool:
        """The socket may be held open by a process that was forked meanwhile, so the parent is asked for as well."""
        return os.getppid() == self._parent

    def _serve(self) -> bool:
        question, sockets = wire.receive_with_descriptors(self._control, 2)
        match question:
            case {"fork": limits}:
                wire.send(self._control, {"pid": self._fork(*sockets, **limits)})
            case {"wait": pid}:
                wire.send(self._control, {"status": self._wait(pid)})
            case {"template": name, "setup": setup}:
                self._templates[name] = self._fork_template(sockets[0], setup)
            case {"end": name}:
                self._end_template(name)
        return question is not None

    def _fork_template(self, control: int, setup: dict[str, Any]) -> int:
        """In this process's group, so that whoever ends that ends the template."""
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._control.close()
            _be_template(socket.socket(fileno=control), Job.from_json(setup), me)
        os.close(control)
        return pid

    def _end_template(self, name: int) -> None:
        """Its workers are given to this process, and end when their sockets are closed."""
        pid = self._templates.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    def _fork(self, jobs: int, output: int, memory_bytes: int | None, nice: int) -> int:
        pid = os.fork()
        if pid == 0:
            self._control.close()
            _limit(memory_bytes, nice)
            _work(jobs, output)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)  # whoever comes first: this process may be asked to kill it before it has run
        self._workers.add(pid)
        os.close(jobs)
        os.close(output)
        return pid

    def _wait(self, wait: int) -> int | None:
        """The exit status of a worker that is gone; negative for a signal."""
        self._workers.discard(wait)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(wait, 0)[1])
        except ChildProcessError:
            return None


def _be_template(control: socket.socket, setup: Job, mother: int) -> NoReturn:
    """A template's life. It ends where it cannot import the plugin, or the plugin starts a thread: workers see for themselves."""
    try:
        with ending_with(mother):
            _Plugin(setup).import_compilers(setup)
        if len(os.listdir("/proc/self/task")) == 1:  # noqa: PTH208 - names are enough
            _Mother(control).run()
    finally:
        os._exit(0)


def _work(jobs: int, output: int) -> NoReturn:
    """A worker's life. Never returns into the mother's code."""
    status = 1
    try:
        with contextlib.suppress(PermissionError):
            os.setpgid(0, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.set_inheritable(jobs, False)
        _answer_jobs(socket.socket(fileno=jobs))
        status = 0
    except BrokenPipeError:
        pass  # nobody waits for the answer
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    finally:
        os._exit(status)


def _answer_jobs(sock: socket.socket) -> None:
    builder, state, me = _Builder(), ProcessState(), os.getpid()
    while True:
        record, locks = wire.receive_with_descriptors(sock, 1)
        if record is None:
            return
        job = Job.from_json(record["job"])
        _end_after(record["timeout_s"] + _GRACE_S)
        answer = builder.answer(job)
        if os.getpid() != me:
            os._exit(0)  # the compiler forked and went on in both: one of them answers
        builder.note_end(job, answer)
        for lock in locks:
            os.close(lock)
        wire.send(sock, dataclasses.replace(answer, is_last=not state.restore()).to_json())


def _build_one(file: Path) -> str | None:
    """Build the one key of a file. Returns what went wrong, for `sys.exit`."""
    job = Job.from_json(json.loads(file.read_text(encoding="utf-8")))
    answer = _Builder().answer(job)
    if answer.status != "built":
        return f"{answer.status}: {answer.error}"
    print(f"built in {answer.seconds:.2f} s, {answer.n_compiles} compiler runs; it is in {job.root}")  # noqa: T201 - for a person
    return None


class _Builder:
    """Builds keys of one plugin after the other; what a plugin needs is wired once."""

    def __init__(self) -> None:
        self._wired: dict[str, _Wiring] = {}

    def answer(self, job: Job) -> Answer:
        """Build one key. Whatever goes wrong becomes text: not every exception survives a journey."""
        start = time.monotonic()
        try:
            wiring = self._wiring(job)
            wiring.emit("job_start", kernel=job.kernel, key=job.key)
            record = wiring.kernels.get(job.kernel) or wiring.imported(job)
            if record is None and job.origin:
                return Answer("failed", error=describe_error(wiring.absent(job)))
            if record is None:
                why = wiring.refused or "made from live objects, or in __main__"
                return Answer("local", error=f"{job.kernel} is not there in a compile process: {why}")
            if job.origin:
                require_same(job, wiring.policy.origin(record.kernel, wiring.target))
            key = decode_key(record.kernel, job.key)
            with TargetScope(wiring.target):
                built = wiring.policy.build(record.kernel, key, wiring.target)
        except MemoryError as exc:
            return Answer("died", seconds=_since(start), error=describe_error(exc))
        except BaseException as exc:  # noqa: BLE001 - as said above; nobody interrupts this process but a compiler itself
            return Answer(outcome_of(exc).value, seconds=_since(start), error=describe_error(exc))
        outcome = built.outcome.value if built.outcome in (Outcome.COMPILED, Outcome.LOADED) else None
        return Answer("built", built.n_compiles, _since(start), outcome=outcome)

    def note_end(self, job: Job, answer: Answer) -> None:
        """Tell the log how a job ended, if it came so far that there is one."""
        if wiring := self._wired.get(_setup_of(job)):
            wiring.emit("job_end", kernel=job.kernel, key=job.key, status=answer.status, seconds=answer.seconds)

    def _wiring(self, job: Job) -> "_Wiring":
        setup = _setup_of(job)
        if setup not in self._wired:
            self._wired[setup] = _Wiring(job)
        return self._wired[setup]


class _Plugin:
    """One plugin (and that of its backend), and its kernels for a configuration and a target."""

    def __init__(self, job: Job) -> None:
        self.registry = Registry(lambda name: name in (job.plugin, job.backend_plugin))
        self.registry.load_builtin()
        self.registry.load_installed()
        if job.places_caches:
            # As whoever started this process does, once it knows the plugin's backends; it may not have known them then.
            for backend in self.registry.backends:
                place_caches(backend.cache_variables, job.root)
        toolchains = tuple(backend.toolchain() for backend in self.registry.backends if not backend.missing())
        parsed = Target.parse(job.target)
        self.target = Target(parsed.kind, parsed.arch, toolchains)
        self.kernels = self.registry.kernels(read_config(job.config), self.target)

    def import_compilers(self, job: Job) -> None:
        """Import what the kernels are compiled with, that of the job as well, should no plugin yield it."""
        names = {kernel.backend for kernel in self.kernels}
        with contextlib.suppress(Exception):  # here and below, the job that needs it will say what is wrong
            if job.import_path:
                names.add(self.registry.backend_of(_imported(job.import_path)))
        modules = [module for backend in self.registry.backends if backend.name in names for module in backend.modules]
        for module in modules:
            with contextlib.suppress(Exception):
                importlib.import_module(module)


class _Wiring:
    """Registry, backends and policy for one plugin (and that of its backend), configuration, target and store."""

    def __init__(self, job: Job) -> None:
        log = EventLog(job.run)
        self.emit = log.emit
        plugin = _Plugin(job)
        registry, self.target = plugin.registry, plugin.target
        self.policy = BuiltinPolicy(registry.backends, log.emit, lock_timeout_s=None)
        self.kernels = {kernel.id: kernel for kernel in plugin.kernels}
        self.refused = next((refused.reason for refused in registry.refused if refused.name == job.plugin), "")
        self.policy.know(plugin.kernels)
        self.plugins = registry.plugins
        root = Path(job.root)
        self.policy.use(Store(root))
        log.keep_in(root / "events")

    def absent(self, job: Job) -> JitwarmError:
        """Why this host cannot make a kernel that the sender's host can."""
        if self.refused:
            return HostError(f"plugin {job.plugin} was refused on host {platform.node()}: {self.refused}", INSTALL)
        if job.plugin not in self.plugins:
            return HostError(f"plugin {job.plugin} is not installed on host {platform.node()}", INSTALL)
        found = self.plugins[job.plugin].distribution
        return HostError(
            f"{found} on host {platform.node()} has no {job.kernel}; here it is {job.distribution}", INSTALL
        )

    def imported(self, job: Job) -> RegisteredKernel | None:
        """A kernel that no plugin yields, from the place that the job names."""
        if not job.import_path:
            return None
        kernel = _imported(job.import_path)
        record = RegisteredKernel(job.kernel, kernel, job.plugin, job.distribution, None, job.import_path)
        self.policy.know([record])
        self.kernels[job.kernel] = record
        return record


def _setup_of(job: Job) -> str:
    return f"{job.setup}, {job.root}"


def _imported(import_path: str) -> Any:
    """The object at `module:attribute`."""
    module, _, attribute = import_path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _since(start: float) -> float:
    return round(time.monotonic() - start, 4)


def _widen_affinity() -> None:
    """A bound process passes its one core on; the compile processes may use whatever the container has."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _end_after(seconds: float) -> None:
    """For a compile that hangs when nobody is left to end it: this process ends itself. `ProcessState` takes it back."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit(memory_bytes: int | None, nice: int) -> None:
    """Keep this process, and each that it starts, within its limits."""
    if memory_bytes is not None:
        with contextlib.suppress(OSError, ValueError):  # where less is allowed already, that holds
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    if nice:
        give_way(nice)


def _be_killed_first() -> None:
    """Where memory ends, a compile process is to go, and not the server that asked for it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    main()
