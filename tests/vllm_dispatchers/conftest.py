"""The Python files of a released vLLM for GPUs, and programs that look at them in a process of their own."""

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


@pytest.fixture(scope="session")
def wheel():
    """(directory with `vllm/`, directory with what it imports); skipped where they cannot be had."""
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
    return files, imports


@pytest.fixture(scope="session")
def run_over_wheel(wheel):
    """Run a program of this directory over the wheel's files, as on a machine without a GPU; the document that it prints."""

    def run(script):
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name(script), *wheel],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "VLLM_TARGET_DEVICE": "cpu"},
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
