"""Compile processes: a compiler that hangs, crashes or eats memory costs one key, and never the server.

    here                     mother: python -m jitwarm.child    template              worker
    Workers --- control ---> forks templates -----------------> imports a plugin
       |                                                        and its compilers,
       +----------------------- control ----------------------> forks workers -----> compiles, one job at a time
       +------------------ jobs and answers, a socket per worker ------------------>

A worker compiles for one backend: what a compiler leaves behind in its process is no other compiler's trouble. Where a template
does not come up (the plugin starts threads, say, and then a fork is not safe) the mother forks the workers.

vLLM's workers are daemonic processes of `multiprocessing`, which may have no children of that kind; `subprocess` works there,
and is safe in a process with CUDA and threads. The mother leads a session of its own and each worker a process group, so that
a kill reaches the compilers that a worker has started. When this process ends, however it ends, the mother sees the control
socket close, and ends her workers and herself.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from jitwarm.engine.jobs import Answer, Job
from jitwarm.engine.parents import Parents
from jitwarm.engine.processes import ENDED, Limits, Worker
from jitwarm.errors import WorkerDiedError, WorkersUnavailableError

_OUT_OF_MEMORY = re.compile(r"MemoryError|bad_alloc|out of memory|cannot allocate", re.IGNORECASE)


class Workers:
    """The compile processes of one run: per backend as many workers as are asked at once. Safe to use in threads.

    Args:
        emit: Receives `child_start` and `child_end`.
        limits: Of each compile process; None sets none.
        environ: Variables of the compile processes, over those of this one.

    Attributes:
        limits: What holds for each.
    """

    def __init__(
        self,
        emit: Callable[..., None],
        limits: Limits | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._emit = emit
        self._environ = environ
        self.limits = limits or Limits()
        self._parents = Parents(self.limits, environ)
        self._pools: dict[str, _Pool] = {}
        self._is_closed = False

    def build(self, job: Job, backend: str | None, timeout_s: float, lock: int | None = None) -> Answer:
        """Build one key in a worker, and wait for it.

        Args:
            job: What to build.
            backend: Whose compiler it takes; None for a kernel that no adapter knows.
            timeout_s: Then the worker is killed.
            lock: The descriptor of the key's lock. The worker holds it, too: were this process killed, nobody else builds
                the key while the worker still does.

        Raises:
            WorkersUnavailableError: No process can be started.
            KeyTimeoutError: It took longer.
            WorkerDiedError: The worker ended, or answered what is no answer; the next job gets a fresh one.
        """
        pool = self._pools.setdefault(backend or "", _Pool())
        worker = self._take(pool, backend, job, timeout_s)
        try:
            answer = worker.ask(job, timeout_s, lock)
        except BaseException as exc:  # also an interrupt: then nobody waits for the answer
            end = self._discard(pool, worker, str(exc).partition("\n")[0] or type(exc).__name__)
            if isinstance(exc, WorkerDiedError) and exc.message == ENDED:  # else it was us who ended it
                raise WorkerDiedError(f"{exc.message}{end}", self._with_limit(exc.hint)) from exc
            raise
        if answer.status == "died":
            self._discard(pool, worker, answer.error)
            raise WorkerDiedError("the compile process ran out of memory", self._with_limit(answer.error))
        if worker.n_jobs >= self.limits.max_jobs:
            self._discard(pool, worker, f"has built {worker.n_jobs} keys")
            return answer
        if answer.is_last:
            self._discard(pool, worker, "its state could not be put back")
            return answer
        with pool.lock:
            pool.busy.discard(worker)
            pool.idle.append(worker)
        return answer

    def _discard(self, pool: "_Pool", worker: "Worker", why: str) -> str:
        """End a worker. Returns how it ended, should it have done so by itself."""
        with pool.lock:
            pool.busy.discard(worker)
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

    def prestart(self, setup: Job) -> None:
        """Let a plugin's template begin with its imports; whoever forks first waits for the rest. Never raises.

        Args:
            setup: Any job of the plugin.
        """
        with contextlib.suppress(WorkersUnavailableError):
            self._parents.prestart(setup)

    def await_start(self, setup: Job, backend: str | None) -> None:
        """Wait until the plugin's template has done its imports, and a first worker of the backend is there.

        Raises:
            WorkersUnavailableError: No process can be started.
        """
        pool = self._pools.setdefault(backend or "", _Pool())
        worker = self._take(pool, backend, setup, None)
        with pool.lock:
            pool.busy.discard(worker)
            pool.idle.append(worker)

    def reopen(self, limits: Limits) -> None:
        """After `close`, take jobs again, with these limits."""
        self.limits = limits
        self._parents = Parents(limits, self._environ)
        self._pools = {}
        self._is_closed = False

    def close(self) -> None:
        """End every process, those that work at once; no further job is taken."""
        self._is_closed = True
        if any(pool.lock.locked() for pool in self._pools.values()):
            self._parents.kill()  # who waits for imports gives up
        for pool in self._pools.values():
            with pool.lock:
                for worker in pool.busy:
                    worker.kill_only()
                for worker in pool.idle:
                    worker.close()
                pool.idle.clear()
        self._parents.close()

    def _take(self, pool: "_Pool", backend: str | None, job: Job, timeout_s: float | None) -> "Worker":
        with pool.lock:
            if self._is_closed:
                raise WorkersUnavailableError("the run is over")
            worker = self._idle(pool, job.setup)
            if worker is None:
                worker = self._parents.fork(job, timeout_s)
                worker.setup = job.setup
                self._emit("child_start", child=worker.pid, backend=backend)
            pool.busy.add(worker)
            pool.most_at_once = max(pool.most_at_once, len(pool.busy))
            return worker

    def _idle(self, pool: "_Pool", setup: str) -> "Worker | None":
        """A worker that waits for a job and has the plugin, if there is one.

        Others' wait for their plugin's turn, as many as were ever at work at once; of more the one that has waited longest goes.
        """
        for worker in reversed(pool.idle):
            if worker.setup == setup and worker.is_quiet():
                pool.idle.remove(worker)
                return worker
        for worker in [worker for worker in pool.idle if not worker.is_quiet()]:
            self._let_go(pool, worker, "it ended, or said something, without having a job")
        while len(pool.idle) > pool.most_at_once:
            self._let_go(pool, pool.idle[0], "other plugins' turn")
        return None

    def _let_go(self, pool: "_Pool", worker: Worker, why: str) -> None:
        pool.idle.remove(worker)
        worker.kill()
        worker.parent.describe_end(worker.pid)  # nobody else waits for it
        self._emit("child_end", child=worker.pid, why=why)


class _Pool:
    """The workers of one backend. The lock is held while one is forked, so the others wait for the imports once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: list[Worker] = []
        self.busy: set[Worker] = set()
        self.most_at_once = 0
