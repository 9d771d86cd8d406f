"""The lock of a key, when processes die, fork, or live on a file system that has none."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import fault_kit
import kits
import pytest
from fault_kit import notes
from processes import SUPPORT, is_running, wait_until

from jitwarm.errors import LockTimeoutError
from jitwarm.store.locks import locked


@pytest.fixture(autouse=True)
def faulty(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    kits.install(tmp_path / "site", "faulty", fault_kit.PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def is_free(file):
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_while_the_compile_process_of_a_killed_server_lives_nobody_else_builds_its_key(root):
    with subprocess.Popen([sys.executable, str(SUPPORT / "fault_kit.py"), str(root), "sleeps"]) as server:
        try:
            wait_until(notes, "a key is being compiled", 60)
            (noted,) = notes()
            (lock,) = (file for file in (root / "locks").iterdir() if file.stem != "store")
            os.kill(noted["mother"], signal.SIGSTOP)  # she would end her worker at once
        finally:
            server.kill()
    assert is_running(noted["pid"])
    assert not is_free(lock)
    os.kill(noted["mother"], signal.SIGCONT)
    wait_until(lambda: is_free(lock), "the lock is free")
    assert not is_running(noted["pid"])


def test_a_lock_that_is_given_back_is_free_though_a_fork_inherited_it(tmp_path):
    path = tmp_path / "key.lock"
    with locked(path, 0.0):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with locked(path, 0.0):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_is_held_is_not_had_twice(tmp_path):
    with locked(tmp_path / "key.lock", 0.0), pytest.raises(LockTimeoutError), locked(tmp_path / "key.lock", 0.0):
        pass


def test_without_locks_every_key_is_built_all_the_same_and_the_log_says_so(root, tmp_path):
    library = tmp_path / "no_locks.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SUPPORT / "no_locks.c"], check=True)
    done = kits.python(SUPPORT / "fault_kit.py", root, "builds", "builds 2", LD_PRELOAD=library)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for file in root.glob("events/*/*.jsonl") for line in file.read_text().splitlines()]
    assert [event["outcome"] for event in events if event["event"] == "key_end"] == ["compiled", "compiled"]
    (told,) = [event for event in events if event["event"] == "no_locks"]
    assert told["root"] == str(root)
