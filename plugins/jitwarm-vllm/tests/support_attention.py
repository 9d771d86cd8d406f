"""Runs `attention_program` over each vLLM that there is, once per target and session, and bakes what this package declares."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("attention_program.py")
PACKAGE = Path(__file__).parents[1]
SEED = 20251121
MODULES = ("attention_cases", "state_cases", "mamba_cases")

CASES = (
    "Llama-3.1-8B",
    "Llama-3.1-8B, TP 8",
    "Gemma-3-12B",
    "Gemma-3-12B, TP 8",
    "Qwen3-Next-80B-A3B",
    "Qwen3-Next-80B-A3B, TP 8",
    "Llama-3.1-8B NVFP4",
    "few sequences, drafts, no graphs",
    "captured sizes move the split",
    "fp8 cache",
    "sinks, cap, ALiBi, chunks, odd heads",
    "LoRA, Llama-3.1-8B",
    "LoRA, Llama-3.1-8B, TP 8",
    "LoRA, rank 8, odd sizes",
    "encoders",
    "encoder in 32 bits",
    "vision encoder",
    "sampler",
    "sampler, odd vocabulary and length",
    "NVFP4 in a later vLLM",
)


@pytest.fixture(scope="session")
def wheel_files():
    """(directory with `vllm/`, directory with what it imports); skipped where they cannot be had."""
    from benchmarks import vllm_wheel

    try:
        found = vllm_wheel.files(), vllm_wheel.dependencies()
    except vllm_wheel.UnavailableError as exc:
        pytest.skip(f"no vLLM {vllm_wheel.VERSION} to compare with: {exc}")
    if vllm_wheel.version(found[0]) != vllm_wheel.VERSION:
        pytest.skip(f"the expectations are of vLLM {vllm_wheel.VERSION}, not {vllm_wheel.version(found[0])}")
    return tuple(map(str, found))


def document(target, *wheel, cases="attention_cases"):
    """Case -> comparison, over a wheel's files or the installed vLLM."""
    return _documents(target, *wheel)[cases]


@cache
def _documents(target, *wheel):
    """Module of cases -> document. One process for all of them: it takes long to import vLLM."""
    done = _run([PROGRAM, ",".join(MODULES), target, str(SEED), *wheel], [PACKAGE / "src"])
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def bake(directory, config, targets, *wheel):
    """`jitwarm bake` of this package's kernels: the document that it has printed for each target."""
    site = directory / "site"  # as if the package were installed, whether it is or not
    info = site / "jitwarm_vllm-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jitwarm-vllm\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[jitwarm.kernels]\nvllm_kernels = jitwarm_vllm.plugin\n")
    (directory / "serving.toml").write_text(config)
    options = [option for target in targets for option in ("--target", target)]
    options += ["--config", directory / "serving.toml", "--out", directory / "baked", "--json"]
    done = _run(["-m", "jitwarm", "bake", *options, "--kernel", "vllm_kernels:*"], [site, PACKAGE / "src", *wheel])
    assert done.returncode in (0, 1), done.stderr[-3000:]
    found = json.loads(done.stdout)
    return found if isinstance(found, list) else [found]


def _run(arguments, path):
    """A Python program that sees no GPU, and first of all these directories."""
    given = os.environ.get("PYTHONPATH", "")
    return subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, "-W", "ignore", *arguments],
        env={
            **os.environ,
            "CUDA_VISIBLE_DEVICES": "",
            "JITWARM_PLAN_TIMEOUT_S": "300",  # vLLM's import from cold files, on a busy machine
            "PYTHONPATH": os.pathsep.join([*map(str, path), given]),
        },
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
