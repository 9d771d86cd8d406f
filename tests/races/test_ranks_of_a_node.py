"""Several ranks of one node want the same keys at once: real processes, real compilers, one compile per key."""

import json
import signal

import pytest
from node import compiles, ranks
from processes import outcomes, wait_until

N_RANKS = 4


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def test_each_key_of_each_dsl_is_compiled_once_and_warm_in_every_rank(root):
    with ranks(root, N_RANKS) as started:
        reports = [json.loads(process.communicate(timeout=400)[0]) for process in started]
    found = compiles(root)
    assert set(found.values()) == {1}
    assert {kernel for kernel, _ in found} == {"example:fused_add_rms_norm", "example:silu_and_mul", "example:gemm"}
    for report in reports:
        assert len(outcomes(report)) == len(found)
        assert set(outcomes(report)) <= {"compiled", "loaded"}
        assert report["n_warm"] == len(found)
    assert sum(report["n_compiles"] for report in reports) == len(found)


@pytest.mark.soak  # `test_soak` kills processes of ranks in each of its rounds
def test_a_rank_that_is_killed_frees_what_it_held(root):
    with ranks(root, N_RANKS) as started:
        wait_until(lambda: root.is_dir() and compiles(root), "a key is compiled", seconds=120)
        victim = started.pop(1)
        victim.send_signal(signal.SIGKILL)
        reports = [json.loads(process.communicate(timeout=400)[0]) for process in started]
        victim.communicate()
    for report in reports:
        assert set(outcomes(report)) <= {"compiled", "loaded"}
    # What the victim's compile process had under way may have been compiled once more.
    assert sum(compiles(root).values()) <= len(compiles(root)) + 2
