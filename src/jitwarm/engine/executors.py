"""Builds keys on the hosts of a cluster, through any `concurrent.futures.Executor`; in local compile processes if that breaks.

here                                              a host
ExecutorIsolation --- Order, as text ----------->  hosts.run --- Job ---> compile process
   checks and publishes  <--- Reply, with bytes --    packs  <---------  builds into a scratch store
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from pathlib import Path

from jitwarm.contract.backend import Backend
from jitwarm.contract.kernel import RegisteredKernel
from jitwarm.contract.target import Target
from jitwarm.engine.elsewhere import OVER_BUDGET
from jitwarm.engine.hosts import run
from jitwarm.engine.isolation import ChildIsolation
from jitwarm.engine.jobs import Answer, Order, Origin, Reply
from jitwarm.engine.parcels import publish
from jitwarm.errors import HostError, KeyTimeoutError, Skipped, WorkerDiedError, text_of
from jitwarm.store import Store

# Threads that wait: cheap, but each key under way also holds a lock, an open file.
_MAX_IN_FLIGHT = 512
# Beyond a key's own time, twice: a queue behind others' jobs, a node that dies and is replaced, a compiler's import.
_QUEUE_S = 900.0
# Failures of the executor itself, one after the other, after which it is not asked any more.
_MAX_FAILURES = 3


def n_in_flight(executor: Executor, otherwise: int) -> int:
    """How many keys an executor is given at once: its slots, at most 512.

    Args:
        executor: What it says in `n_slots`, or `_max_workers` as the standard library's do.
        otherwise: For one that says nothing.
    """
    said = getattr(executor, "n_slots", None) or getattr(executor, "_max_workers", None)
    return min(said if isinstance(said, int) and said > 0 else otherwise, _MAX_IN_FLIGHT)


class ExecutorIsolation:
    """Has each key built on a host and publishes what comes back; see `engine.elsewhere.Isolation`.

    Args:
        executor: Carries text to a host that has jitwarm installed, and text back.
        here: Builds what no host can: kernels of this process alone, and everything once the executor is broken.
        root: The store.
        key_timeout_s: Longest that one key may take to compile.
        n_here: Keys that are built here at once, should it come to that.
        backends: All that are known, also those that come to be known later.
        is_installed: Whether a plugin, by name, is a package's, and so can be on another host.
        emit: Receives `built_on_host`, `host_failed`, and `hosts_unavailable` at most once.
    """

    def __init__(
        self,
        executor: Executor,
        here: ChildIsolation,
        root: Path,
        key_timeout_s: float,
        n_here: int,
        backends: Sequence[Backend],
        is_installed: Callable[[str], bool],
        emit: Callable[..., None],
    ) -> None:
        self._executor = executor
        self._here = here
        self._root = root
        self._key_timeout_s = key_timeout_s
        self._slots_here = threading.BoundedSemaphore(n_here)
        self._backends = backends
        self._is_installed = is_installed
        self._emit = emit
        self._lock = threading.Lock()
        self._pending: set[Future[str]] = set()
        self._n_failures = 0
        self._is_broken = False
        self._is_closed = False

    @property
    def ends_at(self) -> float | None:
        """On the clock of `time.monotonic`; from then on nothing is built."""
        return self._here.ends_at

    @ends_at.setter
    def ends_at(self, value: float | None) -> None:
        self._here.ends_at = value

    @property
    def limits(self) -> dict[str, float]:
        """What one key may take; a host's memory is its own."""
        return self._here.limits

    def build(
        self, kernel: RegisteredKernel, key: str, target: Target, *, origin: Origin, lock: int | None = None
    ) -> Answer:
        """Build one key on a host, into the store here.

        Raises:
            Skipped: The budget ended first.
            KeyTimeoutError: The compiler hung.
            WorkerDiedError: The compiler died twice.
            HostError: What the host sent cannot be used.
        """
        order = self._order(kernel, key, target, origin)
        reply = None
        if not self._is_broken and (kernel.import_path or self._is_installed(kernel.plugin)):
            reply = self._ask(order)
        if reply is None:
            with self._slots_here:
                return self._here.build(kernel, key, target, origin=origin, lock=lock)
        return self._taken(reply, order)

    def close(self) -> None:
        """Take back what no host has begun, and wait for nothing; the executor stays its owner's."""
        self._is_closed = True
        with self._lock:
            pending = list(self._pending)
        for future in pending:
            future.cancel()

    def _order(self, kernel: RegisteredKernel, key: str, target: Target, origin: Origin) -> Order:
        job = replace(self._here.job(kernel, key, target), root="", origin=origin)
        return Order(
            job=job,
            fingerprint=Store.fingerprint(job.kernel, job.key, job.target, origin.toolchain, origin.source),
            backend=kernel.backend,
            cache_variables={name: place for known in self._backends for name, place in known.cache_variables.items()},
            key_timeout_s=min(self._key_timeout_s, self._left_s()),
        )

    def _left_s(self) -> float:
        return float("inf") if self.ends_at is None else max(self.ends_at - time.monotonic(), 0.0)

    def _ask(self, order: Order) -> Reply | None:
        """What a host answers; None if none does, and the key is to be built here."""
        if self._left_s() <= 0:
            raise Skipped(OVER_BUDGET)
        patience_s = 2 * order.key_timeout_s + _QUEUE_S
        try:
            text = self._carried(json.dumps(order.to_json()), min(patience_s, self._left_s()))
        except Exception as exc:  # `run` answers a key's failure, so this is the executor's own
            if self._is_closed or self._left_s() <= 0:
                raise Skipped(OVER_BUDGET if self._left_s() <= 0 else "the run is over") from exc
            late = f"no answer after {patience_s:.0f} s" if isinstance(exc, TimeoutError) else ""
            self._failed(order, exc, late or text_of(exc))
            return None
        self._n_failures = 0
        try:
            return Reply.from_json(json.loads(text))
        except (TypeError, ValueError, KeyError, AttributeError) as exc:
            raise HostError(
                f"a host sent what is no reply: {text!r:.200}", "is its jitwarm of another version?"
            ) from exc

    def _carried(self, order: str, timeout_s: float) -> str:
        try:
            future = self._executor.submit(run, order)
        except BrokenExecutor:
            raise
        except RuntimeError as exc:  # it was shut down
            raise BrokenExecutor(str(exc)) from exc
        with self._lock:
            self._pending.add(future)
        try:
            return future.result(timeout_s)
        finally:
            with self._lock:
                self._pending.discard(future)
            future.cancel()

    def _failed(self, order: Order, exc: Exception, why: str) -> None:
        """Remember that the executor lost a job; tell once when it is given up."""
        self._emit("host_failed", kernel=order.job.kernel, key=order.job.key, why=why)
        with self._lock:
            self._n_failures += 1
            is_final = isinstance(exc, BrokenExecutor | CancelledError | TimeoutError)
            gives_up = not self._is_broken and (is_final or self._n_failures >= _MAX_FAILURES)
            self._is_broken = self._is_broken or gives_up
        if gives_up:
            self._emit("hosts_unavailable", error=why)

    def _taken(self, reply: Reply, order: Order) -> Answer:
        """What the policy makes of a reply."""
        answer, where = reply.answer, f"host {reply.host}"
        if answer.status == "timed_out":
            if order.key_timeout_s < self._key_timeout_s:
                raise Skipped(OVER_BUDGET)
            raise KeyTimeoutError(answer.error, reply.hint, where)
        if answer.status == "died":
            raise WorkerDiedError(answer.error, reply.hint, where)
        if answer.status != "built":
            return replace(answer, error=f"{answer.error}\n  on: {where}")
        if not isinstance(answer.n_compiles, int):
            raise HostError(
                f"{where} sent what cannot be used: {answer.n_compiles!r} compiler runs", "bake again", where
            )
        if answer.outcome not in (None, "compiled", "loaded"):
            raise HostError(f"{where} sent what cannot be used: outcome {answer.outcome!r}", "bake again", where)
        publish(Store(self._root), reply, order.job, order.fingerprint, self._backends)
        self._emit("built_on_host", kernel=order.job.kernel, key=order.job.key, host=reply.host, n=answer.n_compiles)
        return answer
