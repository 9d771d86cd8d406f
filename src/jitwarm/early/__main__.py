"""The early builder: `python -m jitwarm.early`, started by a worker, with a spec on stdin and then what the worker tells.

It gives way to everything while weights are loaded: lowest priority, idle I/O class, half of the processors. It sees no GPU, and
ends when stdin is closed: its compile processes see their sockets close, and end as well.
"""

import dataclasses
import os
import select
import sys
import threading
from contextlib import suppress
from io import FileIO
from typing import TYPE_CHECKING

from jitwarm.early.handle import AT_THE_SEAM, LOADED, Spec
from jitwarm.early.node import Node
from jitwarm.engine.container import usable_cpus
from jitwarm.engine.priority import come_forward, give_way
from jitwarm.environment import CACHE_VARIABLES
from jitwarm.errors import text_of
from jitwarm.events import EventLog
from jitwarm.store import Store

if TYPE_CHECKING:
    from jitwarm.engine.prefetch import Prefetch
    from jitwarm.engine.schedule import Item

_POLL_S = 1.0


class _Builder:
    """One turn."""

    def __init__(self, spec: Spec, worker: FileIO) -> None:
        self._spec = spec
        self._worker = worker
        self._parent = os.getppid()
        self._prefetch: Prefetch[Item] | None = None
        self._most_workers = spec.settings.workers or usable_cpus()
        self._n_workers = max(1, self._most_workers // 2)
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Follow what the worker tells; end this process when the worker has ended, or needs it no more."""
        while os.getppid() == self._parent:
            if not select.select([self._worker], [], [], _POLL_S)[0]:
                continue
            line = self._worker.readline().decode().rstrip()
            if not line:
                break
            with self._lock:
                if line == LOADED:
                    self._widen()
                if line == AT_THE_SEAM and self._prefetch is None:
                    break  # whoever wanted it builds now
        os._exit(0)

    def run(self) -> None:
        """Wait for the turn, and build what nobody has built."""
        settings = self._spec.settings
        Store(settings.root, CACHE_VARIABLES.values())  # makes the directory, and makes it private
        node = Node(settings.root)
        with node.turn():
            if self._spec.configuration not in node.done(self._spec.start):
                self._build(node)
                node.finish(self._spec.start, self._spec.configuration)

    def _build(self, node: Node) -> None:
        from jitwarm.contract.target import Target  # noqa: PLC0415 - as above
        from jitwarm.session import Session  # noqa: PLC0415 - whoever only waits needs little memory
        from jitwarm.settings import Asked, read_learned  # noqa: PLC0415 - as above

        settings = dataclasses.replace(self._spec.settings, time_budget_s=None, finish_in_background=False)
        asked = Asked(self._spec.config, settings, read_learned(settings))
        session = Session(asked, Target.parse(self._spec.target), n_ranks=self._spec.n_ranks, role="early")
        try:
            prefetch, fingerprints = session.prefetch(session.plan(will_run=True))
            node.announce(self._spec.start, fingerprints)
            with self._lock:
                self._prefetch = prefetch
            for _ in prefetch.ready(self._n_workers):
                pass
            session.log.emit("run_end")
        finally:
            session.finish()

    def _widen(self) -> None:
        come_forward()
        self._n_workers = self._most_workers
        if self._prefetch is not None:
            self._prefetch.widen(self._n_workers)


def main() -> None:
    """One turn, then the end."""
    with suppress(OSError, AttributeError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # a bound worker passes its one core on
    give_way()
    worker = FileIO(sys.stdin.fileno())  # unbuffered: what follows the spec is `listen`'s
    spec = Spec.from_json(worker.readline().decode())
    builder = _Builder(spec, worker)
    threading.Thread(target=builder.listen, daemon=True).start()
    try:
        builder.run()
    except Exception as exc:  # noqa: BLE001 - the workers build what it did not; the log says why they had to
        log = EventLog(spec.settings.run_id)
        log.emit("early_failed", error=text_of(exc))
        log.keep_in(spec.settings.root / "events")


if __name__ == "__main__":
    main()
