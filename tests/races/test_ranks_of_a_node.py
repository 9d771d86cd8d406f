"""Several ranks of one node want the same keys at once: real processes, real compilers, one compile per key."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager

import pytest
from processes import SUPPORT, outcomes, wait_until

N_RANKS = 4


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


@contextmanager
def ranks(root, n_ranks=N_RANKS, plugin="example"):
    """Start ranks that begin together; each is killed at the end, should it still be there."""
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SUPPORT / "rank.py"), str(root), str(n_ranks), plugin]
    started = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(n_ranks)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def compiles(root):
    """How often each key was compiled, by whatever process."""
    lines = [line for file in (root / "events" / "run").glob("*.jsonl") for line in file.read_text().splitlines()]
    events = [json.loads(line) for line in lines]
    return Counter((event["kernel"], event["key"]) for event in events if event["event"] == "compile")


def test_each_key_of_each_dsl_is_compiled_once_and_warm_in_every_rank(root):
    with ranks(root) as started:
        reports = [json.loads(process.communicate(timeout=400)[0]) for process in started]
    found = compiles(root)
    assert set(found.values()) == {1}
    assert {kernel for kernel, _ in found} == {"example:fused_add_rms_norm", "example:silu_and_mul", "example:gemm"}
    for report in reports:
        assert len(outcomes(report)) == len(found)
        assert set(outcomes(report)) <= {"compiled", "loaded"}
    assert sum(report["n_compiles"] for report in reports) == len(found)


def test_a_rank_that_is_killed_frees_what_it_held(root):
    with ranks(root) as started:
        wait_until(lambda: root.is_dir() and compiles(root), "a key is compiled", seconds=120)
        victim = started.pop(1)
        victim.send_signal(signal.SIGKILL)
        reports = [json.loads(process.communicate(timeout=400)[0]) for process in started]
        victim.communicate()
    for report in reports:
        assert set(outcomes(report)) <= {"compiled", "loaded"}
    # What the victim's compile process had under way may have been compiled once more.
    assert sum(compiles(root).values()) <= len(compiles(root)) + 2
