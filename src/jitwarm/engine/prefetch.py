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
    """Build every job, `n_workers` at a time, and yield each item when it can be loaded; see `Prefetch`."""
    return Prefetch(tasks, build, patience_s).ready(n_workers)


class Prefetch(Generic[T]):
    """Builds jobs in threads that wait for compile processes.

    Args:
        tasks: In the order in which they are begun.
        build: Builds one job and returns True; False if another process is building it. Never raises. Called from threads.
        patience_s: Longest that a job is left to another process; then its item is ready all the same.
    """

    def __init__(self, tasks: Sequence[Task[T]], build: Callable[[Any], bool], patience_s: float) -> None:
        self._ready: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._n_tasks = len(tasks)
        self._n_threads = 0
        self._build = build
        self._patience_s = patience_s
        self._waiting: deque[tuple[Task[T], float]] = deque()
        for task in tasks:
            if task.job is None:
                self._ready.put(task.item)
            else:
                self._waiting.append((task, float("inf")))

    def ready(self, n_workers: int) -> Iterator[T]:
        """Begin to build, `n_workers` jobs at once.

        Yields:
            Each item once, when it can be loaded. Left early, what is under way ends by itself and nothing more is begun.
        """
        self.widen(n_workers)
        try:
            for _ in range(self._n_tasks):
                yield self._ready.get()
        finally:
            self._is_over.set()

    def widen(self, n_workers: int) -> None:
        """From now on build `n_workers` jobs at once, if these are more; where no thread can be started, items come unbuilt."""
        for _ in range(min(n_workers - self._n_threads, len(self._waiting))):
            try:
                threading.Thread(target=self._work, name=f"jitwarm: build {self._n_threads}", daemon=True).start()
            except RuntimeError:
                if self._n_threads == 0:
                    self._give_up()
                return
            self._n_threads += 1

    def _give_up(self, *tasks: Task[T]) -> None:
        """Let these items come unbuilt, and all that wait."""
        for task in tasks:
            self._ready.put(task.item)
        with contextlib.suppress(IndexError):
            while True:
                self._ready.put(self._waiting.popleft()[0].item)

    def _work(self) -> None:
        while not self._is_over.is_set():
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
                self._ready.put(task.item)
            else:
                self._waiting.append((task, min(gives_up_at, time.monotonic() + self._patience_s)))
                self._is_over.wait(_POLL_S)
