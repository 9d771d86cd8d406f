"""A thread that imports gives way to one that loads: counted in modules, since only their number says who went first."""

import builtins
import importlib
import sys
import threading
import time

import pytest

from jitwarm.early import Behind

N = 200


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Many small modules, none imported; their names."""
    names = [f"small_{tmp_path.name}_{number}" for number in range(N)]
    for name in names:
        (tmp_path / f"{name}.py").write_text("x = sum(range(20000))\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield names
    for name in names:
        sys.modules.pop(name, None)


def follow(behind, names):
    """A thread that imports them all."""

    def work():
        with behind:
            for name in names:
                __import__(name)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def n_imported(names):
    return sum(name in sys.modules for name in names)


def spin(seconds):
    """As a loader that copies weights: it needs a processor, and the interpreter's lock."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def spin_until(condition, at_most_s):
    end = time.monotonic() + at_most_s
    while not condition() and time.monotonic() < end:
        sum(range(1000))


def test_beside_a_leader_that_works_little_is_imported_and_all_once_it_waits(modules):
    behind = Behind()
    thread = follow(behind, modules)
    spin(1.0)
    beside = n_imported(modules)
    thread.join(60)  # this thread waits
    assert beside < N // 2
    assert n_imported(modules) == N


def test_a_leader_that_lets_go_holds_nothing_back(modules):
    behind = Behind()
    thread = follow(behind, modules)
    spin(0.1)
    behind.release()
    while thread.is_alive():
        spin(0.01)
    assert n_imported(modules) == N


def test_what_others_import_meanwhile_is_not_held_back(modules):
    behind = Behind()
    thread = follow(behind, modules[: N // 2])
    for name in modules[N // 2 :]:
        __import__(name)
    behind.release()
    thread.join(60)
    assert n_imported(modules) == N


def test_a_leader_that_has_ended_holds_nothing_back(modules):
    made = []
    leader = threading.Thread(target=lambda: made.append(Behind()))
    leader.start()
    leader.join()
    follow(made[0], modules).join(60)
    assert n_imported(modules) == N


def test_nothing_is_left_behind(modules):
    before = builtins.__import__, sys.getswitchinterval()
    follow(Behind(), modules).join(60)
    assert (builtins.__import__, sys.getswitchinterval()) == before


def test_nothing_is_left_behind_by_one_that_hangs(modules, tmp_path):
    before = builtins.__import__, sys.getswitchinterval()
    hangs = f"hangs_{tmp_path.name}"
    (tmp_path / f"{hangs}.py").write_text("import threading; threading.Event().wait()\n")
    behind = Behind()
    follow(behind, [hangs])
    while hangs not in sys.modules:
        time.sleep(0.01)
    behind.release()
    assert (builtins.__import__, sys.getswitchinterval()) == before


def test_a_leader_that_spins_until_another_thread_has_a_half_imported_module_gets_it(modules, tmp_path):
    """The other thread waits for the module's lock, which the pausing one holds."""
    parent = f"parent_{tmp_path.name}"
    (tmp_path / f"{parent}.py").write_text(f"import time; time.sleep(0.2)\nimport {modules[0]}\n")
    behind = Behind()
    thread = follow(behind, [parent])
    while parent not in sys.modules:
        time.sleep(0.01)
    other = threading.Thread(target=importlib.import_module, args=(parent,), daemon=True)
    other.start()
    spin_until(lambda: not other.is_alive(), 60)
    thread.join(60)
    assert not other.is_alive()
    assert n_imported([parent, modules[0]]) == 2
