"""Locks between real processes: exclusive, bounded in time, and free when their holder dies."""

import subprocess
import sys
from contextlib import contextmanager

import pytest

from jitwarm.errors import LockTimeoutError, StoreError
from jitwarm.store.locks import locked

HOLD = """
import sys
from pathlib import Path
from jitwarm.store.locks import locked
with locked(Path(sys.argv[1]), 10):
    print("held", flush=True)
    sys.stdin.readline()
"""
# Increments a counter, in a way that loses counts if two do it at once.
COUNT = """
import sys
from pathlib import Path
from jitwarm.store.locks import locked
lock, counter = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    with locked(lock, 60):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


@contextmanager
def process(source, *arguments):
    """A Python process that has said its first line."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)], stdin=pipe, stdout=pipe, text=True
    ) as child:
        try:
            assert child.stdout.readline()
            yield child
        finally:
            child.kill()


def test_two_processes_never_hold_a_lock_at_once(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    with process(COUNT, tmp_path / "lock", counter) as a, process(COUNT, tmp_path / "lock", counter) as b:
        for child in (a, b):
            child.stdin.write("go\n")
            child.stdin.flush()
        assert (a.wait(60), b.wait(60)) == (0, 0)
    assert counter.read_text() == "200"


def test_a_lock_that_is_held_ends_the_wait_at_its_deadline(tmp_path):
    with process(HOLD, tmp_path / "lock"), pytest.raises(LockTimeoutError) as caught, locked(tmp_path / "lock", 0.05):
        pytest.fail("held twice")
    assert str(tmp_path / "lock") in caught.value.message
    assert "JITWARM_LOCK_TIMEOUT_S" in caught.value.hint
    assert isinstance(caught.value, StoreError)


def test_a_holder_that_is_killed_frees_its_lock(tmp_path):
    with process(HOLD, tmp_path / "lock") as holder:
        holder.kill()
        holder.wait()
        with locked(tmp_path / "lock", 0):
            pass


def test_a_holder_that_leaves_frees_its_lock_whatever_happened_inside(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "lock", 0):
        raise RuntimeError
    with locked(tmp_path / "lock", 0):
        pass


def test_a_lock_file_stays(tmp_path):
    """Unlinking it would let two processes hold "the" lock at once."""
    with locked(tmp_path / "lock", 0):
        pass
    assert (tmp_path / "lock").exists()


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path):
    """The descriptor is not inherited by a program that is started meanwhile."""
    with locked(tmp_path / "lock", 0):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        with locked(tmp_path / "lock", 10):  # the kernel closes it a moment after the program has begun
            assert child.poll() is None
    finally:
        child.kill()
        child.communicate()


def test_a_lock_that_cannot_be_made_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "missing" / "lock", 0):
        pass
