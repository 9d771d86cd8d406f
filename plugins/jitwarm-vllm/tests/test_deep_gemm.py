"""DeepGEMM of a released vLLM, over a described device: nothing here has a GPU, and the library and nvcc are the real ones."""

import importlib.util
import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from published import FP8_BLOCKS

from jitwarm import Target
from jitwarm_vllm import deep_gemm_lists, deep_gemm_process, described_device
from jitwarm_vllm.deep_gemm_layers import Gemm

DRIVE = Path(__file__).with_name("drive_deep_gemm.py")
MOST_TOKENS, SMALL_TOKENS, N_RANDOM = 8192, 300, 1000
MULTIPROCESSORS = {"cuda:90": 132, "cuda:100": 148}


def linear(n, k, tokens=(1, MOST_TOKENS)):
    return Gemm("linear", n, k, 1, 1, is_first=False, tokens=tokens)


def experts(n, k, groups, top_k, *, is_first, tokens=(1, MOST_TOKENS)):
    return Gemm("experts", n, k, groups, top_k, is_first=is_first, tokens=tokens)


def scales_of(gemm):
    return Gemm("scales", gemm.n, gemm.k, gemm.groups, 1, is_first=False, tokens=(1, 1))


# Qwen3-30B-A3B in FP8, its linear layers on one rank and on eight, and a layer whose columns are no multiple of four blocks.
LINEAR = [linear(5120, 2048), linear(2048, 4096), linear(768, 2048), linear(2048, 512), linear(1536, 384)]
# Its experts on one rank, and an eighth of them.
EXPERTS = [
    (experts(1536, 2048, 128, 8, is_first=True), experts(2048, 768, 128, 8, is_first=False)),
    (experts(1536, 2048, 16, 8, is_first=True), experts(2048, 768, 16, 8, is_first=False)),
]


# A small model with experts, all of whose weights have blocks.
MODEL = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16", "hidden_size": 512,
    "intermediate_size": 512, "moe_intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128,
    "num_hidden_layers": 2, "num_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 4096,
    "quantization_config": FP8_BLOCKS,
}  # fmt: skip
MODEL_TOKENS = (1, 20)
OF_MODEL = [
    linear(1024, 512, MODEL_TOKENS),
    linear(512, 512, MODEL_TOKENS),
    experts(512, 512, 8, 2, is_first=True, tokens=MODEL_TOKENS),
    experts(512, 256, 8, 2, is_first=False, tokens=MODEL_TOKENS),
]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("target", MULTIPROCESSORS)
def test_vllms_own_layers_launch_what_is_listed(wheel_with_deep_gemm, tmp_path, target):
    """For every small number of tokens, for the fewest that use each group of kernels, the most, and a thousand at random."""
    for needed in ("triton", "cutlass", "tilelang"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"vLLM's modules import {needed}")
    layers = [(gemm,) for gemm in LINEAR] + EXPERTS
    lists = listed(target, tmp_path, [gemm for layer in layers for gemm in (*layer, *map(scales_of, layer))])
    driven = drive(target, tmp_path, wheel_with_deep_gemm, [(layer[0], tokens(layer, lists)) for layer in layers])
    for layer, found in zip(layers, driven, strict=True):
        expected = {entry for gemm in layer for _, entries in lists[gemm] for entry in entries}
        assert set(found["used"]) == expected
        assert set(found["prepared"]) == {e for gemm in layer for _, entries in lists[scales_of(gemm)] for e in entries}
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


# --- building ----------------------------------------------------------------------------------------------------------


@pytest.mark.vllm
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("target", MULTIPROCESSORS)
def test_after_a_bake_deepgemm_compiles_for_no_number_of_tokens(tmp_path, target):
    first = bake(tmp_path, target)
    assert set(first["outcomes"]) <= {
        "compiled",
        "loaded",
    }  # a small kernel may be of several keys: the first one's build is
    assert first["outcomes"]["compiled"] >= len(OF_MODEL)  # loaded for the others
    assert bake(tmp_path, target)["outcomes"] == {"loaded": sum(first["outcomes"].values())}
    larger = replace(OF_MODEL[0], tokens=(MODEL_TOKENS[1], MOST_TOKENS))
    *answers, beyond = serve(tmp_path, target, [*OF_MODEL, larger])
    assert all("reached" in answer for answer in answers), answers
    assert "refused to compile" in beyond["error"]  # else nobody would have refused


@pytest.mark.vllm
@pytest.mark.usefixtures("library")
@pytest.mark.soak
def test_a_kernel_that_nvcc_cannot_compile_is_one_failed_key(tmp_path, monkeypatch):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(
        f"""#!/bin/sh
case "$*" in *kernel.cu*) grep -q "0, 1024, 512," "$1" && {{ echo "too many registers" >&2; exit 3; }};; esac
exec {described_device.find_nvcc()} "$@"
"""
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv("DG_JIT_NVCC_COMPILER", str(nvcc))
    report = bake(tmp_path, "cuda:90", succeeds=False)
    rows = [row for kernel in report["kernels"] for row in kernel["keys"] if row["outcome"] == "failed"]
    assert rows
    assert all("n=1024" in row["label"] and "too many registers" in row["error"] for row in rows), rows
    assert report["outcomes"]["compiled"] >= len(OF_MODEL) - 1


def bake(tmp_path, target, *, succeeds=True):
    """The report of a bake of the small model."""
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "serving.toml").write_text(
        f"max_num_batched_tokens = {MODEL_TOKENS[1]}\n"
        f"[extra.vllm_kernels]\nmodel = {str(tmp_path / 'config.json')!r}\nmoe_backend = 'deep_gemm'\n"
    )
    arguments = ("--target", target, "--out", tmp_path / "out", "--config", tmp_path / "serving.toml", "--json")
    done = subprocess.run(  # noqa: S603 - jitwarm itself
        [sys.executable, "-m", "jitwarm", "bake", "--kernel", "vllm_kernels:deep_gemm_*", *map(str, arguments)],
        env={**os.environ, "JITWARM_PLUGINS": "triton,vllm_kernels", "JITWARM_PLAN_TIMEOUT_S": "300"},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert (done.returncode == 0) == succeeds, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout)


def serve(tmp_path, target, gemms):
    """What DeepGEMM itself answers over the baked cache, with a compiler that refuses."""
    directory = tmp_path / "served"
    directory.mkdir()
    refusing = directory / "refusing"
    refusing.write_text(
        f"#!/bin/sh\n[ $1 = --version ] && exec {described_device.find_nvcc()} --version\necho refused to compile\nexit 1\n"
    )
    refusing.chmod(0o755)
    parsed = Target.parse(target)
    variables = {
        **deep_gemm_process.environment(parsed, MULTIPROCESSORS[target], directory, compiles=True),
        "DG_JIT_CACHE_DIR": str(tmp_path / "out" / "deep_gemm"),
        "DG_JIT_NVCC_COMPILER": str(refusing),
    }
    requests = [deep_gemm_process.request(gemm, parsed) for gemm in gemms]
    library = deep_gemm_process.find_library()
    done = subprocess.run(  # noqa: S603 - jitwarm itself
        [sys.executable, "-m", "jitwarm_vllm.deep_gemm_host", library, variables["DESCRIBED_DEVICE"], directory],
        env={**os.environ, **variables},
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()[1:]]
