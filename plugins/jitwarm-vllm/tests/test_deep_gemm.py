"""DeepGEMM of a released vLLM, over a described device: nothing here has a GPU, and the library and nvcc are the real ones."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from benchmarks import vllm_wheel

from jitwarm import Target
from jitwarm_vllm import deep_gemm_lists, deep_gemm_process
from jitwarm_vllm.deep_gemm_layers import Gemm

DRIVE = Path(__file__).with_name("drive_deep_gemm.py")
MOST_TOKENS, SMALL_TOKENS, N_RANDOM = 8192, 300, 1000
MULTIPROCESSORS = {"cuda:90": 132, "cuda:100": 148}


def linear(n, k, tokens=(1, MOST_TOKENS)):
    return Gemm("linear", n, k, 1, 1, is_first=False, tokens=tokens)


def experts(n, k, groups, top_k, *, is_first, tokens=(1, MOST_TOKENS)):
    return Gemm("experts", n, k, groups, top_k, is_first=is_first, tokens=tokens)


# Qwen3-30B-A3B in FP8, its linear layers on one rank and on eight, and a layer whose columns are no multiple of four blocks.
LINEAR = [linear(5120, 2048), linear(2048, 4096), linear(768, 2048), linear(2048, 512), linear(1536, 384)]
# Its experts on one rank, and an eighth of them.
EXPERTS = [
    (experts(1536, 2048, 128, 8, is_first=True), experts(2048, 768, 128, 8, is_first=False)),
    (experts(1536, 2048, 16, 8, is_first=True), experts(2048, 768, 16, 8, is_first=False)),
]


@pytest.fixture(scope="module")
def wheel():
    try:
        return vllm_wheel.files(), vllm_wheel.dependencies(), vllm_wheel.deep_gemm()
    except vllm_wheel.UnavailableError as exc:
        pytest.skip(f"no vLLM {vllm_wheel.VERSION} to compare with: {exc}")


@pytest.fixture
def library(wheel, tmp_path, monkeypatch):
    """DeepGEMM as a package that can be found, as vLLM takes one that is installed beside it."""
    path = tmp_path / "path"
    path.mkdir()
    (path / "deep_gemm").symlink_to(wheel[2])
    monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("PYTHONPATH", str(path))
    deep_gemm_process.library_version.cache_clear()
    yield path
    deep_gemm_process.library_version.cache_clear()


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("target", MULTIPROCESSORS)
def test_vllms_own_layers_launch_what_is_listed(wheel, tmp_path, target):
    """For every small number of tokens, for the fewest that use each group of kernels, the most, and a thousand at random."""
    for needed in ("triton", "cutlass", "tilelang"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"vLLM's modules import {needed}")
    layers = [(gemm,) for gemm in LINEAR] + EXPERTS
    lists = listed(target, tmp_path, [gemm for layer in layers for gemm in layer])
    driven = drive(target, tmp_path, wheel, [(layer[0], tokens(layer, lists)) for layer in layers])
    for layer, found in zip(layers, driven, strict=True):
        expected = {entry for gemm in layer for _, entries in lists[gemm] for entry in entries}
        assert set(found["used"]) == expected
        if layer[0].call == "linear":
            assert found["found"] == [layer[0].n, layer[0].k]


def listed(target, tmp_path, gemms):
    answers = deep_gemm_lists.listed(Target.parse(target), MULTIPROCESSORS[target], tmp_path / "cache", gemms)
    return dict(zip(gemms, answers, strict=True))


def tokens(layer, lists):
    first = {n for gemm in layer for n, _ in lists[gemm]}
    larger = random.Random(1).sample(range(SMALL_TOKENS, MOST_TOKENS), N_RANDOM)  # noqa: S311 - the same each time
    return sorted({*range(1, SMALL_TOKENS), *first, *larger, MOST_TOKENS})


def drive(target, tmp_path, wheel, cases):
    directory = tmp_path / "driven"
    directory.mkdir()
    parsed = Target.parse(target)
    variables = deep_gemm_process.environment(parsed, MULTIPROCESSORS[target], directory, compiles=False)
    given = json.dumps([{"gemm": asdict(gemm), "tokens": numbers} for gemm, numbers in cases])
    done = subprocess.run(  # noqa: S603 - a program of these tests
        [sys.executable, DRIVE, target, given, *map(str, wheel[:2])],
        env={**os.environ, **variables, "VLLM_TARGET_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])
