"""Whether runner V2 samples, and with what: vLLM's own runner classes, without an engine."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

PROGRAM = """
import dataclasses, json
from types import SimpleNamespace
from jitwarm import NeedsModel, WarmupConfig
from jitwarm.contract.config import LiveObjects
from jitwarm_vllm import processing, real
from jitwarm_vllm.sampling import sampled

V2 = "vllm.v1.worker.gpu.model_runner"

def engine(module, **model):
    runner = object.__new__(real.module(module).GPUModelRunner)
    runner.model_config = SimpleNamespace(**{"max_logprobs": 7, "logprobs_mode": "processed_logprobs", **model})
    runner.vocab_size, runner.max_model_len = 1000, 512
    return LiveObjects(None, runner)

def read(module):
    with engine(module):
        found = sampled(WarmupConfig(dtype="float16"))
    return found and dataclasses.asdict(found)

def n_keys(**model):
    with engine(V2, **model):
        [kernel] = [kernel for kernel in processing.kernels() if kernel.name == "sampler_logprobs"]
        return len(kernel.get_warmup_keys(WarmupConfig(dtype="float16")))

def without(**config):
    try:
        return sampled(WarmupConfig(**config))
    except NeedsModel:
        return "needs the model"

print(json.dumps([
    read(V2), read("vllm.v1.worker.gpu_model_runner"), without(), without(has_layers=False),
    n_keys(logprobs_mode="raw_logits"), n_keys(logprobs_mode="raw_logprobs", max_logprobs=0),
    n_keys(logprobs_mode="raw_logprobs"), n_keys(logprobs_mode="raw_logprobs", max_logprobs=-1)
]))
"""


@pytest.mark.vllm
def test_the_engines_own_runner_says_who_samples_and_what():
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
        *(0, 1, 4, 18),  # logits alone; the token's own; up to 8 at once; all 1,000, from 16 on in two classes
    ]  # fmt: skip


@pytest.mark.parametrize("kernel", ["_bincount_kernel", "_bad_words_kernel"])
def test_a_length_that_nobody_has_said_is_not_guessed(kernel):
    """The rest of the sampler does not ask for it."""
    from jitwarm import Unresolved
    from jitwarm_vllm import processing
    from jitwarm_vllm.sampling import Sampled

    [declaration] = [kind for kind in (processing.Bincount, processing.BadWords) if kind.place[1] == kernel]
    declaration = object.__new__(declaration)
    declaration.module = SimpleNamespace(
        envs=SimpleNamespace(VLLM_MAX_BAD_WORDS_TOTAL_TOKENS=1024, VLLM_MAX_NUM_BAD_WORDS=128)
    )
    assert declaration.inputs(Sampled(1000, "float16", 512, 20, "raw_logprobs"))["room"] == 512
    with pytest.raises(Unresolved, match="the length that a request may reach"):
        declaration.inputs(Sampled(1000, "float16", None, 20, "raw_logprobs"))
