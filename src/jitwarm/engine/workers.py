"""Compile processes: a compiler that hangs, crashes or eats memory costs one key, and never the server.

    here                     mother: python -m jitwarm.child    template              worker
    Workers --- control ---> imports the compiler,
       |                     forks templates -----------------> imports a plugin,
       +----------------------- control ----------------------> forks workers -----> compiles, one job at a time
       +------------------ jobs and answers, a socket per worker ------------------>

Where a template does not come up (the plugin starts threads, say, and then a fork is not safe) the mother forks the workers.

vLLM's workers are daemonic processes of `multiprocessing`, which may have no children of that kind; `subprocess` works there,
and is safe in a process with CUDA and threads. The mother leads a session of its own and each worker a process group, so that
a kill reaches the compilers that a worker has started. When this process ends, however it ends, the mother sees the control
socket close, and ends her workers and herself.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from jitwarm.engine.jobs import Answer, Job
from jitwarm.engine.processes import ENDED, Limits, Mother, Template, Worker
from jitwarm.errors import WorkerDiedError, WorkersUnavailableError

_OUT_OF_MEMORY = re.compile(r"MemoryError|bad_alloc|out of memory|cannot allocate", re.IGNORECASE)


class Workers:
    """The compile processes of one run: per backend a mother, and as many workers as are asked at once. Safe to use in threads.

    Args:
        modules: What the mother of a backend, given by name, imports before she forks.
        emit: Receives `child_start` and `child_end`.
        limits: Of each compile process; None sets none.
        environ: Variables of the compile processes, over those of this one.

    Attributes:
        limits: What holds for each.
    """

    def __init__(
        self,
        modules: Callable[[str], Sequence[str]],
        emit: Callable[..., None],
        limits: Limits | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._modules = modules
        self._environ = environ
        self._emit = emit
        self.limits = limits or Limits()
        self._families: dict[str, _Family] = {}
        self._is_closed = False

    def build(self, job: Job, backend: str | None, timeout_s: float, lock: int | None = None) -> Answer:
        """Build one key in a worker, and wait for it.

        Args:
            job: What to build.
            backend: Whose mother to ask; None for a kernel that no adapter knows.
            timeout_s: Then the worker is killed.
            lock: The descriptor of the key's lock. The worker holds it, too: were this process killed, nobody else builds
                the key while the worker still does.

        Raises:
            WorkersUnavailableError: No process can be started.
            KeyTimeoutError: It took longer.
            WorkerDiedError: The worker ended, or answered what is no answer; the next job gets a fresh one.
        """
        family = self._families.setdefault(backend or "", _Family())
        worker = self._take(family, backend, job, timeout_s)
        try:
            answer = worker.ask(job, timeout_s, lock)
        except BaseException as exc:  # also an interrupt: then nobody waits for the answer
            end = self._discard(family, worker, str(exc).partition("\n")[0] or type(exc).__name__)
            if isinstance(exc, WorkerDiedError) and exc.message == ENDED:  # else it was us who ended it
                raise WorkerDiedError(f"{exc.message}{end}", self._with_limit(exc.hint)) from exc
            raise
        if answer.status == "died":
            self._discard(family, worker, answer.error)
            raise WorkerDiedError("the compile process ran out of memory", self._with_limit(answer.error))
        if worker.n_jobs >= self.limits.max_jobs:
            self._discard(family, worker, f"has built {worker.n_jobs} keys")
            return answer
        if answer.is_last:
            self._discard(family, worker, "its state could not be put back")
            return answer
        with family.lock:
            family.busy.discard(worker)
            family.idle.append(worker)
        return answer

    def _discard(self, family: "_Family", worker: "Worker", why: str) -> str:
        """End a worker. Returns how it ended, should it have done so by itself."""
        with family.lock:
            family.busy.discard(worker)
            worker.kill()
            end = worker.parent.describe_end(worker.pid)
        self._emit("child_end", child=worker.pid, why=why)
        return end

    def _with_limit(self, printed: str) -> str:
        """What a compile process said at its end, and the limit that it may have met."""
        if self.limits.memory_bytes is None or not _OUT_OF_MEMORY.search(printed):
            return printed
        limit = f"it may take {self.limits.memory_bytes / 2**30:.1f} GiB: raise JITWARM_WORKER_MEMORY_BYTES if it needs more"
        return f"{limit}\n{printed}"

    def prestart(self, setup: Job, backend: str | None) -> None:
        """Let a mother and a template begin with their imports; whoever forks first waits for the rest. Never raises.

        Args:
            setup: Any job of the plugin.
            backend: As for `build`.
        """
        family = self._families.setdefault(backend or "", _Family())
        with family.lock, contextlib.suppress(WorkersUnavailableError):
            if not self._is_closed:
                self._template(family, backend, setup)

    def await_start(self, setup: Job, backend: str | None) -> None:
        """Wait until mother and template have done their imports and a first worker is there.

        Raises:
            WorkersUnavailableError: No process can be started.
        """
        family = self._families.setdefault(backend or "", _Family())
        worker = self._take(family, backend, setup, None)
        with family.lock:
            family.busy.discard(worker)
            family.idle.append(worker)

    def reopen(self, limits: Limits) -> None:
        """After `close`, take jobs again, with these limits."""
        self.limits = limits
        self._families = {}
        self._is_closed = False

    def close(self) -> None:
        """End every process, those that work at once; no further job is taken."""
        self._is_closed = True
        for family in self._families.values():
            if family.lock.locked() and family.mother:
                family.mother.kill()  # who waits for her imports gives up
            with family.lock:
                for worker in family.busy:
                    worker.kill_only()
                for worker in family.idle:
                    worker.close()
                family.idle.clear()
                mother = family.mother
                family.forget_mother()
                if mother:
                    mother.close()

    def _take(self, family: "_Family", backend: str | None, job: Job, timeout_s: float | None) -> "Worker":
        with family.lock:
            if self._is_closed:
                raise WorkersUnavailableError("the run is over")
            worker = self._idle(family, _setup_of(job))
            if worker is None:
                worker = self._fork(family, backend, job, timeout_s)
                self._emit("child_start", child=worker.pid, backend=backend)
            family.busy.add(worker)
            family.most_at_once = max(family.most_at_once, len(family.busy))
            return worker

    def _idle(self, family: "_Family", setup: str) -> "Worker | None":
        """A worker that waits for a job and has the plugin, if there is one; any other, where each imports it itself.

        Others' wait for their plugin's turn, as many as were ever at work at once; of more the one that has waited longest goes.
        """
        template = family.templates.get(setup)
        for worker in reversed(family.idle if setup in family.templates else []):
            if template in (None, worker.parent) and worker.is_quiet():
                family.idle.remove(worker)
                return worker
        for worker in [worker for worker in family.idle if not worker.is_quiet()]:
            self._let_go(family, worker, "it ended, or said something, without having a job")
        while len(family.idle) > family.most_at_once:
            self._let_go(family, family.idle[0], "other plugins' turn")
        return None

    def _let_go(self, family: "_Family", worker: Worker, why: str) -> None:
        family.idle.remove(worker)
        worker.kill()
        worker.parent.describe_end(worker.pid)  # nobody else waits for it
        self._emit("child_end", child=worker.pid, why=why)

    def _fork(self, family: "_Family", backend: str | None, job: Job, timeout_s: float | None) -> "Worker":
        """A worker of the plugin's template, else of the mother; of another mother, if she has died or dies at her start."""
        with contextlib.suppress(WorkersUnavailableError):
            if template := self._template(family, backend, job):
                return template.fork(*() if timeout_s is None else (timeout_s,))
        family.templates[_setup_of(job)] = None
        for is_last in (False, True):
            if self._is_closed:
                raise WorkersUnavailableError("the run is over")
            try:
                return self._mother(family, backend).fork()
            except WorkersUnavailableError:
                family.forget_mother()
                if is_last:
                    raise
        raise AssertionError

    def _template(self, family: "_Family", backend: str | None, setup: Job) -> Template | None:
        """The template of a job's plugin, made if need be; None where one did not come up."""
        name = _setup_of(setup)
        if name not in family.templates:
            family.templates[name] = self._mother(family, backend).template(setup.to_json())
        return family.templates[name]

    def _mother(self, family: "_Family", backend: str | None) -> "Mother":
        family.mother = family.mother or Mother(self._modules(backend or ""), self.limits, self._environ)
        return family.mother


class _Family:
    """The processes of one backend. The lock is held while one is forked, so the others wait for the mother's imports once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mother: Mother | None = None
        self.templates: dict[str, Template | None] = {}
        self.idle: list[Worker] = []
        self.busy: set[Worker] = set()
        self.most_at_once = 0

    def forget_mother(self) -> None:
        """She has ended, and her templates with her."""
        for template in filter(None, self.templates.values()):
            template.close()
        self.mother = None
        self.templates = {}


def _setup_of(job: Job) -> str:
    """What a template has imported: jobs that agree in this can share one."""
    return repr((job.plugin, job.backend_plugin, job.target, job.config))
