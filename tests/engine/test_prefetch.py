"""Building ahead: each item once, when it can be loaded; what another process builds is left for later."""

import threading

import pytest

from jitwarm.engine.prefetch import Task, in_order_of_readiness


def ready(tasks, build, n_workers=2, patience_s=60.0):
    return list(in_order_of_readiness(tasks, build, n_workers, patience_s))


def join():
    """Wait for the threads of a call that is over."""
    for thread in threading.enumerate():
        if thread.name.startswith("jitwarm: build"):
            thread.join(60)


@pytest.mark.parametrize("n_workers", [1, 2, 8])
def test_each_item_comes_once_and_each_job_is_built_once(n_workers):
    built = []
    tasks = [Task(n, f"job {n}") for n in range(20)]
    assert sorted(ready(tasks, lambda job: built.append(job) or True, n_workers)) == list(range(20))
    assert sorted(built) == sorted(task.job for task in tasks)


def test_what_needs_no_build_comes_at_once():
    released = threading.Event()
    items = in_order_of_readiness([Task("built", 1), Task("at once")], lambda _: released.wait(60), 1, 60.0)
    assert next(items) == "at once"
    released.set()
    assert list(items) == ["built"]


def test_no_more_than_n_are_under_way():
    under_way, most, lock = set(), [], threading.Lock()

    def build(job):
        with lock:
            under_way.add(job)
            most.append(len(under_way))
        threading.Event().wait(0.01)
        under_way.discard(job)
        return True

    ready([Task(n, n) for n in range(12)], build, n_workers=3)
    assert max(most) <= 3


def test_what_another_process_builds_is_asked_for_again_after_the_others():
    asked = []

    def build(job):
        asked.append(job)
        return job != "theirs" or asked.count("theirs") == 3

    assert ready([Task("theirs", "theirs"), Task("ours", "ours")], build, n_workers=1) == ["ours", "theirs"]
    assert asked == ["theirs", "ours", "theirs", "theirs"]


def test_patience_with_another_process_ends():
    assert ready([Task("theirs", "theirs")], lambda _: False, patience_s=0.0) == ["theirs"]


def test_left_early_nothing_more_is_begun():
    built, first = [], threading.Event()

    def build(job):
        built.append(job)
        if job:
            first.wait(60)
        return True

    items = in_order_of_readiness([Task(n, n) for n in range(50)], build, 1, 60.0)
    next(items)
    items.close()
    first.set()
    join()
    assert len(built) <= 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_build_that_raises_all_the_same_leaves_nobody_waiting():
    def build(job):
        raise SystemExit

    assert sorted(ready([Task(n, n) for n in range(3)], build, n_workers=1)) == [0, 1, 2]
    join()


def test_without_threads_every_item_comes_unbuilt(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert ready([Task(n, n) for n in range(3)], lambda _: pytest.fail("built")) == [0, 1, 2]
