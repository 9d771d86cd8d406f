"""Runner V2's sampler, driven as the runner drives it. Imported by `attention_cases`."""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import published
import torch

from jitwarm_vllm import models, processing, real, sampling
from jitwarm_vllm.platform import answering_for

_PLACE = "vllm.v1.worker.gpu."
_N_ASKED = 3
# What a request can ask for; `grammar` and `bad` are made below.
ASKED = (
    {"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 0.7}, {"seed": 3}, {"min_p": 0.1}, {"repetition_penalty": 1.2},
    {"frequency_penalty": 0.5}, {"presence_penalty": 0.5}, {"allowed_token_ids": [1, 2]}, {"logit_bias": {3: 1.0}},
    {"min_tokens": 2, "stop_token_ids": [5]}, {"min_tokens": 2, "stop_token_ids": [5], "grammar": True}, {"bad": True},
    *({"logprobs": n} for n in range(21)),
)  # fmt: skip


@dataclass
class Sampler:
    """vLLM's own `Sampler`, its states and a batch as vLLM makes it, on CPU tensors: nothing of a launch is ours.

    Requests ask for one thing or several, alone and in company. What vLLM's registry declares, and the kernels that write the
    states, are `others`.
    """

    vocab_size: int
    max_model_len: int = 8192
    logprobs_mode: str = "raw_logprobs"
    n_random: int = 60
    others = re.compile("_apply_write|_topk_topp|_topp_split|get_num_sampled")

    def config(self):
        document = {**published.LLAMA31_8B, "vocab_size": self.vocab_size}
        file = Path(tempfile.mkdtemp()) / "config.json"
        file.write_text(json.dumps(document))
        settings = {"model": str(file), "use_v2_model_runner": True, "logprobs_mode": self.logprobs_mode}
        given = {"max_num_batched_tokens": 2048, "max_num_seqs": 32, "max_model_len": self.max_model_len}
        return models.read(document, **given, extra={"vllm_kernels": settings})

    def kernels(self):
        return [*sampling.kernels(), *processing.kernels()]

    def drive(self, config, target, rng):
        batches = real.module(_PLACE + "input_batch")
        real.module("vllm.utils.torch_utils").PIN_MEMORY = False
        sampler, states = self._sampler(config)
        buffers = batches.InputBuffers(config.max_num_seqs, config.max_num_batched_tokens, torch.device("cpu"))
        warm = {"temperature": 0.7}
        steps = [step for asked in ASKED for step in ([asked], [asked, {}], [asked, warm], [{**asked, **warm}])]
        for _ in range(self.n_random):
            n = rng.randint(1, config.max_num_seqs)
            steps.append(
                [
                    {k: v for _ in range(rng.randint(0, _N_ASKED)) for k, v in rng.choice(ASKED).items()}
                    for _ in range(n)
                ]
            )
        with answering_for(target):
            for step in steps:
                for index, asked in enumerate(step):
                    states.prompt_len.np[index] = states.prefill_len.np[index] = 3
                    sampler.add_request(index, _params(asked))
                sampler.apply_staged_writes()
                sampler(self._logits(len(step)), batches.InputBatch.make_dummy(len(step), len(step), buffers))
        return len(steps)

    def _sampler(self, config):
        """With the buffers of a platform that has no UVA, which have the same shapes."""
        buffer_utils = real.module(_PLACE + "buffer_utils")
        buffer_utils.is_uva_available = lambda: False
        real.module("vllm.platforms").current_platform.device_type = "cpu"
        states = real.module(_PLACE + "states").RequestState(
            config.max_num_seqs,
            config.max_model_len,
            config.max_num_batched_tokens,
            0,
            self.vocab_size,
            torch.device("cpu"),
        )
        made = real.module(_PLACE + "sample.sampler").Sampler(
            SimpleNamespace(reasoning_config=None), config.max_num_seqs, self.vocab_size, torch.device("cpu"), states,
            logprobs_mode=self.logprobs_mode,
        )  # fmt: skip
        return made, states

    def _logits(self, n):
        """Of a padded vocabulary, as vLLM cuts them."""
        padding = real.module("vllm.model_executor.layers.vocab_parallel_embedding").DEFAULT_VOCAB_PADDING_SIZE
        return torch.zeros(n, -(-self.vocab_size // padding) * padding, dtype=torch.bfloat16)[..., : self.vocab_size]


def _params(asked):
    params = real.module("vllm.sampling_params")
    given = {name: value for name, value in asked.items() if name not in ("grammar", "bad")}
    if "grammar" in asked:
        given["structured_outputs"] = params.StructuredOutputsParams(json="{}")
    found = params.SamplingParams(**given)
    if "bad" in asked:
        found._bad_words_token_ids = [[1, 2], [3]]  # noqa: SLF001 - else a tokenizer makes them
    return found
