"""Every in-tree kernel of a released vLLM with a dispatcher has the same keys by jitwarm's tracer as by vLLM's own.

Skipped where the wheel, or what its modules import, cannot be had: see `benchmarks/vllm_wheel.py` for where they are looked for.
The table that this makes, and what differs, is in `docs/explanation/vllm-dispatchers.md`.
"""

import pytest

N_KERNELS = 47
N_IMPORTED = 44  # that import as they are; the others need a stand-in for a compiled extension


@pytest.fixture(scope="module")
def compared(run_over_wheel):
    return run_over_wheel("compare.py")


def test_all_kernels_are_imported_and_asked(compared):
    assert len(compared) == N_KERNELS
    assert [row["kernel"] for row in compared if "not_imported" in row] == []
    assert sum(not row["stand_in"] for row in compared) >= N_IMPORTED
    assert [(row["kernel"], row["unasked"]) for row in compared if "unasked" in row] == []
    assert [row["kernel"] for row in compared if not any(call["theirs"] for call in row["calls"])] == []


def test_the_keys_are_those_of_vllms_own_tracer(compared):
    different = {
        f"{row['module']}.{row['kernel']}": {
            name: call.get(name) for name in ("error", "missing", "extra", "theirs", "ours")
        }
        for row in compared
        for call in row["calls"]
        if not call["same"]
    }
    assert different == {}


def test_the_keys_come_in_the_order_of_vllms_own_tracer(compared):
    assert [row["kernel"] for row in compared for call in row["calls"] if call["same"] and not call["same_order"]] == []
