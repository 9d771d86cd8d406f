"""Builds keys ahead of whoever loads them: several at once, shared with every other process that wants the same ones.

Building happens in compile processes; a thread here only waits for one. Loading stays with the caller's thread, because
compilers are not safe to be called from two. A key that another process is building is left for later, so ranks that begin with
the same list end up with different parts of it.
"""

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
    ready: queue.SimpleQueue[T] = queue.SimpleQueue()
    waiting: deque[tuple[Task[T], float]] = deque((task, float("inf")) for task in tasks if task.job is not None)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                task, gives_up_at = waiting.popleft()
            except IndexError:
                return
            if build(task.job) or time.monotonic() >= gives_up_at:
                ready.put(task.item)
            else:
                waiting.append((task, min(gives_up_at, time.monotonic() + patience_s)))
                is_over.wait(_POLL_S)

    for task in tasks:
        if task.job is None:
            ready.put(task.item)
    for n in range(min(n_workers, len(waiting))):
        threading.Thread(target=work, name=f"jitwarm: build {n}", daemon=True).start()
    try:
        for _ in tasks:
            yield ready.get()
    finally:
        is_over.set()
