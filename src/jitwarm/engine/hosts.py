"""The other side of `jitwarm.engine.executors`: what runs on a host of a cluster, in a process of the executor.

That process compiles nothing itself. It has compile processes of its own, and a scratch store on the host's local disk, for as
long as it lives; both are shared by the jobs that run in it, at once or one after the other.

Nothing here is in `jobs`, which is data: `workers` is built on it, and this on `workers`.
"""

import json
import os
import platform
import subprocess
import tempfile
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

from jitwarm.engine.container import memory_for_each_bytes, usable_cpus
from jitwarm.engine.isolation import once_more
from jitwarm.engine.jobs import Answer, Job, Order, Origin, Reply
from jitwarm.engine.parcels import pack
from jitwarm.engine.processes import Limits
from jitwarm.engine.workers import Workers
from jitwarm.errors import HostError, KeyTimeoutError, StoreError, WorkerDiedError
from jitwarm.store import Store

INSTALL = "install the same versions of jitwarm, the compilers and the kernel packages on every host"
# A cluster's processes may live for weeks after the last job, and a compile process holds half a gigabyte.
_IDLE_S = 120.0
# Processes that die with this one may still write for a moment. It leaves its parent, so that what kills a process with its
# children (Ray does) leaves it alone.
_JANITOR = 'exec 3<&0; (read _; rm -rf "$0"; sleep 5; rm -rf "$0") <&3 3<&- >/dev/null 2>&1 &'


def run(order: str) -> str:
    """Build one key on this host. Any `concurrent.futures.Executor` can carry it.

    Args:
        order: A `jobs.Order` as JSON text.

    Returns:
        A `jobs.Reply` as JSON text: what became of the key, and every file of what was built. A key's failure is an answer.

    Raises:
        WorkersUnavailableError: No compile process can be started on this host.
        StoreError: This host's disk for temporary files cannot be used.

    Side effects: starts compile processes, which end with this process or two minutes after the last job, and makes a
    private temporary directory, which is removed when this process has ended, however it ends.
    """
    asked = Order.from_json(json.loads(order))
    try:
        reply = _host().build(asked)
    except (KeyTimeoutError, WorkerDiedError) as exc:
        status = "timed_out" if isinstance(exc, KeyTimeoutError) else "died"
        reply = Reply(platform.node(), Answer(status, error=exc.message), exc.hint)
    return json.dumps(reply.to_json())


def require_same(job: Job, found: Origin) -> None:
    """Check that what this host would build can be used where the job comes from.

    Raises:
        HostError: It says what differs.
    """
    if job.origin is None or job.origin == found:
        return
    host = platform.node()
    if differs := job.origin.difference(found):
        parts = ", ".join(f"{name} {theirs}, here {ours}" for name, ours, theirs in differs)
        raise HostError(f"host {host} has {parts}", INSTALL)
    package = job.distribution or job.plugin
    raise HostError(
        f"host {host} has another source of {package.partition(' ')[0]}, or another version of what it requires",
        INSTALL,
    )


class _Host:
    """What one process keeps between jobs."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._workers: dict[str, Workers] = {}  # by target: a compiler keeps the first that it is given
        self._places: dict[str, str] = {}
        self._n_busy: Counter[str] = Counter()
        self._timer: threading.Timer | None = None

    def build(self, order: Order) -> Reply:
        """Build one key, in the scratch store, and pack it."""
        target = order.job.target
        workers, store = self._begin(order, target)
        try:
            job = replace(order.job, root=str(store.root))
            # Two bakes of one plan may share this process; the lock that each holds at home says nothing here.
            with store.lock(order.fingerprint, 2 * order.key_timeout_s):
                answer = once_more(lambda: workers.build(job, order.backend, order.key_timeout_s))
                return self._reply(store, order, answer)
        finally:
            self._end(target)

    def _reply(self, store: Store, order: Order, answer: Answer) -> Reply:
        if answer.status != "built":
            return Reply(platform.node(), answer)
        entry = store.find(order.fingerprint)
        if entry is None:
            return Reply(
                platform.node(), replace(answer, status="failed", error="it was built, but its manifest is gone")
            )
        return Reply(platform.node(), answer, entry=vars(entry), files=pack(store, entry))

    def _begin(self, order: Order, target: str) -> tuple[Workers, Store]:
        with self._lock:
            if self._store is None:
                self._store = Store(_scratch())
            for variable, directory in order.cache_variables.items():
                self._places[variable] = str(self._store.root / directory)
            if target not in self._workers:
                self._close_idle()
                limits = Limits(memory_for_each_bytes(usable_cpus()))
                self._workers[target] = Workers(lambda *_, **__: None, limits, self._places)
            if self._timer:
                self._timer.cancel()
            self._n_busy[target] += 1
            return self._workers[target], self._store

    def _end(self, target: str) -> None:
        with self._lock:
            self._n_busy[target] -= 1
            if not self._n_busy.total():
                self._timer = threading.Timer(_IDLE_S, self._rest)
                self._timer.daemon = True
                self._timer.start()

    def _rest(self) -> None:
        """End the compile processes; the next job gets fresh ones."""
        with self._lock:
            self._close_idle()

    def _close_idle(self) -> None:
        for target in [target for target in self._workers if not self._n_busy[target]]:
            self._workers.pop(target).close()


_current = _Host()
_changing = threading.Lock()


def _host() -> _Host:
    """This process's own; a fork gets another one, since what its parent has started is not its to use."""
    global _current  # noqa: PLW0603 - one per process is the point
    with _changing:
        if _current.pid != os.getpid():
            _current = _Host()
        return _current


def _scratch() -> Path:
    """A private directory that is removed when this process has ended, also by a signal.

    Raises:
        StoreError: None can be made.
    """
    try:
        directory = tempfile.mkdtemp(prefix="jitwarm-host-")
        # The other end stays open until this process is gone: that is what the janitor waits for.
        watched, _ = os.pipe()
        try:
            janitor = ["/bin/sh", "-c", _JANITOR, directory]
            subprocess.run(janitor, stdin=watched, check=True, start_new_session=True)  # noqa: S603 - as written above
        finally:
            os.close(watched)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise StoreError(f"no temporary directory on host {platform.node()}: {exc}", "free space in TMPDIR") from exc
    return Path(directory)
