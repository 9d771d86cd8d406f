"""Every in-tree kernel of a released vLLM with a dispatcher has the same keys by jitwarm's tracer as by vLLM's own.

Skipped where the wheel, or what its modules import, cannot be had: see `benchmarks/vllm_wheel.py` for where they are looked for.
The table that this makes, and what differs, is in `docs/explanation/vllm-dispatchers.md`.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import vllm_wheel

# The environment as it was, before `clean_environment` takes the variables away.
GIVEN = {name: os.environ[name] for name in ("JITWARM_VLLM_WHEEL", "JITWARM_VLLM_DEPS") if name in os.environ}

N_KERNELS = 47
N_IMPORTED = 44  # that import as they are; the others need a stand-in for a compiled extension


@pytest.fixture(scope="module")
def compared():
    for needed in ("torch", "triton", "cutlass", "tilelang"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"vLLM's kernels import {needed}")
    before = dict(os.environ)
    os.environ.update(GIVEN)
    try:
        files, imports = vllm_wheel.files(), vllm_wheel.dependencies()
    except vllm_wheel.UnavailableError as exc:
        pytest.skip(f"no vLLM {vllm_wheel.VERSION} to compare with: {exc}")
    finally:
        os.environ.clear()
        os.environ.update(before)
    if vllm_wheel.version(files) != vllm_wheel.VERSION:
        pytest.skip(f"the expectations are of vLLM {vllm_wheel.VERSION}, not {vllm_wheel.version(files)}")
    script = Path(__file__).with_name("compare.py")
    done = subprocess.run(
        [sys.executable, script, files, imports],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "VLLM_TARGET_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


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
