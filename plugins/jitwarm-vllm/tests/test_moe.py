"""What is declared of vLLM's MoE kernels is what vLLM's own host code launches: no key is missing, none is extra.

Over the Python files of a released vLLM for GPUs, and, marked `vllm`, over vLLM's CPU build of another version.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import vllm_wheel
from moe_kinds import KINDS

# Kind of layer -> keys, on Hopper; see docs/explanation/vllm-kernels-moe.md.
N_KEYS = {
    "int4": 30,
    "int4 on 8 ranks": 30,
    "int4, tuned": 12,
    "int4, zero points, small groups": 26,
    "int4, experts divided": 30,
    "int4, one of 16": 22,
    "int4 through the function": 12,
    "int8": 19,
    "bfloat16": 30,
    "bfloat16, tuned": 22,
    "fp8 in blocks": 20,
}


def driven(target, *wheel):
    """The document of `drive_moe.py`."""
    done = subprocess.run(  # noqa: S603 - a script of these tests
        [sys.executable, Path(__file__).with_name("drive_moe.py"), target, "some", *wheel],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "VLLM_TARGET_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def wheel():
    for needed in ("torch", "triton", "cutlass", "tilelang"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"vLLM's modules import {needed}")
    try:
        return vllm_wheel.files(), vllm_wheel.dependencies()
    except vllm_wheel.UnavailableError as exc:
        pytest.skip(f"no vLLM {vllm_wheel.VERSION} to compare with: {exc}")


@pytest.fixture(scope="module")
def on_hopper(wheel):
    return driven("cuda:90", *wheel)


@pytest.fixture(scope="module")
def on_blackwell(wheel):
    return driven("cuda:100", *wheel)


@pytest.fixture(scope="module")
def on_cpu_build():
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM's CPU build is not installed")
    return driven("cuda:90")


def assert_exact(found):
    assert found["n_launches"] > 0
    assert list(found["kernels"]), "nothing was launched, and nothing declared"
    for compared in found["kernels"].values():
        assert compared["not_declared"] == []
        assert compared["never_asked"] == []
        assert compared["n_keys"] == compared["n_asked"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_hopper_launches_what_is_declared(on_hopper, kind):
    assert_exact(on_hopper[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_blackwell_launches_what_is_declared(on_blackwell, kind):
    assert_exact(on_blackwell[kind])


@pytest.mark.vllm
@pytest.mark.parametrize("kind", KINDS)
def test_another_version_launches_what_is_declared(on_cpu_build, kind):
    assert_exact(on_cpu_build[kind])


@pytest.mark.parametrize(("kind", "n_keys"), N_KEYS.items())
def test_the_number_of_keys(on_hopper, kind, n_keys):
    """As counted without any declaration of ours; it moves when vLLM's host code does."""
    assert sum(found["n_keys"] for found in on_hopper[kind]["kernels"].values()) == n_keys


def test_targets_differ_where_vllms_code_asks_for_the_gpu(on_hopper, on_blackwell):
    """Hopper alone multiplies transposed operands of 8-bit floats, in small tiles."""
    swapped = [on["fp8 in blocks"]["kernels"]["fused_moe_kernel"]["n_swapped"] for on in (on_hopper, on_blackwell)]
    assert swapped[0] > 0
    assert swapped[1] == 0


def test_a_kernel_that_is_not_specialized_on_tokens_has_a_key_per_tile(on_hopper):
    assert on_hopper["unspecialized"] == {"n_keys": 14, "n_specializations": 14}
