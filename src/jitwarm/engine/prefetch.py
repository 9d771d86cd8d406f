"""Builds keys ahead of whoever loads them: several at once, shared with every other process that wants the same ones.

Building happens in compile processes; a thread here only waits for one. Loading stays with the caller's thread, because
compilers are not safe to be called from two. A key that another process is building is left for later, so ranks that begin with
the same list end up with different parts of it.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.05


@dataclass(frozen=True)
class Task(Generic[T]):
    """Something to load, and the job that builds what it loads; None where there is nothing to build ahead."""

    item: T
    job: Any = None


def in_order_of_readiness(
    tasks: Sequence[Task[T]], build: Callable[[Any], bool], n_workers: int, patience_s: float
) -> Iterator[T]:
    """Build every job, `n_workers` at a time, and yield each item when it can be loaded.

    Args:
        tasks: In the order in which they are begun.
        build: Builds one job and returns True; False if another process is building it. Never raises. Called from threads.
        n_workers: Jobs under way at once.
        patience_s: Longest that a job is left to another process; then its item is yielded all the same.

    Yields:
        Each item once. Left early, what is under way ends by itself and nothing more is begun.
    """
    building = _Building(tasks, build, patience_s)
    building.start(n_workers)
    try:
        for _ in tasks:
            yield building.ready.get()
    finally:
        building.is_over.set()


class _Building(Generic[T]):
    """The threads of one call of `in_order_of_readiness`, and what they share."""

    def __init__(self, tasks: Sequence[Task[T]], build: Callable[[Any], bool], patience_s: float) -> None:
        self.ready: queue.SimpleQueue[T] = queue.SimpleQueue()
        self.is_over = threading.Event()
        self._build = build
        self._patience_s = patience_s
        self._waiting: deque[tuple[Task[T], float]] = deque()
        for task in tasks:
            if task.job is None:
                self.ready.put(task.item)
            else:
                self._waiting.append((task, float("inf")))

    def start(self, n_workers: int) -> None:
        """Start the threads; where none can be started, every item comes unbuilt."""
        for n in range(min(n_workers, len(self._waiting))):
            try:
                threading.Thread(target=self._work, name=f"jitwarm: build {n}", daemon=True).start()
            except RuntimeError:
                if n == 0:
                    self._give_up()
                return

    def _give_up(self, *tasks: Task[T]) -> None:
        """Let these items come unbuilt, and all that wait."""
        for task in tasks:
            self.ready.put(task.item)
        with contextlib.suppress(IndexError):
            while True:
                self.ready.put(self._waiting.popleft()[0].item)

    def _work(self) -> None:
        while not self.is_over.is_set():
            try:
                task, gives_up_at = self._waiting.popleft()
            except IndexError:
                return
            try:
                is_done = self._build(task.job) or time.monotonic() >= gives_up_at
            except BaseException:
                self._give_up(task)  # whoever waits must not wait for ever
                raise
            if is_done:
                self.ready.put(task.item)
            else:
                self._waiting.append((task, min(gives_up_at, time.monotonic() + self._patience_s)))
                self.is_over.wait(_POLL_S)
