"""Whether runner V2 samples, and with what: vLLM's own runner classes, without an engine."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import dataclasses, json
from types import SimpleNamespace
from jitwarm import NeedsModel, WarmupConfig
from jitwarm.contract.config import LiveObjects
from jitwarm_vllm import real
from jitwarm_vllm.sampling import sampled

def read(module, **config):
    runner = object.__new__(real.module(module).GPUModelRunner)
    runner.model_config = SimpleNamespace(max_logprobs=7, logprobs_mode="processed_logprobs")
    runner.vocab_size, runner.max_model_len = 1000, 512
    with LiveObjects(None, runner):
        found = sampled(WarmupConfig(dtype="float16", **config))
    return found and dataclasses.asdict(found)

def without(**config):
    try:
        return sampled(WarmupConfig(**config))
    except NeedsModel:
        return "needs the model"

print(json.dumps([
    read("vllm.v1.worker.gpu.model_runner"), read("vllm.v1.worker.gpu_model_runner"), without(), without(has_layers=False)
]))
"""


@pytest.mark.vllm
def test_the_engines_own_runner_says_who_samples():
    """Before there is one, the question waits for the model; with no engine at all, nobody samples."""
    done = subprocess.run(  # noqa: S603 - the lines above
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=500, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [
        {
            "vocab_size": 1000, "dtype": "float16", "max_model_len": 512, "max_logprobs": 7,
            "logprobs_mode": "processed_logprobs",
        },
        None,
        None,
        "needs the model",
    ]  # fmt: skip
