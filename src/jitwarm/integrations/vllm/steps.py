"""The steps of an execution run, as vLLM's scheduler would ask for them: one prefill of many short prompts, one decode step.

Requests take their blocks from the first one on; block 0 is vLLM's null block. Nothing here is executed: a step is data, and the
next module hands it to the worker.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

_PROMPT = [0, 1]
_DECODED = 1


@dataclass(frozen=True)
class Step:
    """One call of the worker's `execute_model`, and of its `sample_tokens` if there is something to sample.

    Attributes:
        name: For people.
        scheduled: vLLM's `SchedulerOutput`.
        grammar: vLLM's `GrammarOutput`, or None.
        samples: Whether tokens are sampled after it.
    """

    name: str
    scheduled: Any
    grammar: Any = None
    samples: bool = True


class Requests:
    """The requests of one execution run on one model runner.

    Args:
        runner: A model runner of vLLM, with its KV cache in place.

    Attributes:
        ids: One per request, in order. As many as the scheduler would admit and the KV cache holds; none if they are too long.
    """

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._sched = import_module("vllm.v1.core.sched.output")
        self._specs = [group.kv_cache_spec for group in runner.kv_cache_config.kv_cache_groups]
        self._n_blocks = [self._blocks(spec, len(_PROMPT) + _DECODED) for spec in self._specs]
        self._next_block = 1
        self.ids = [f"_jitwarm_{i}_" for i in range(self._count())]

    def steps(self) -> list[Step]:
        """What is to be executed, in order. A pooling model has nothing to decode."""
        if self._runner.is_pooling_model:
            return [Step("prefill", self._prefill([_pooling_params(self._runner)]), samples=False)]
        prefill = Step("prefill", self._prefill(list(_sampling_params(self._runner))), self._grammar())
        return [prefill, Step("decode", self._decode())]

    def end(self) -> Any:
        """The `SchedulerOutput` after which the worker has forgotten these requests."""
        scheduled = self._sched.SchedulerOutput.make_empty()
        scheduled.finished_req_ids = set(self.ids)
        return scheduled

    def _count(self) -> int:
        limits = self._runner.scheduler_config
        n = min(limits.max_num_seqs, limits.max_num_batched_tokens // len(_PROMPT))
        if self._runner.max_model_len < len(_PROMPT) + _DECODED:
            return 0
        per_request = sum(self._n_blocks)
        return int(min(n, (self._runner.kv_cache_config.num_blocks - 1) // per_request) if per_request else n)

    def _blocks(self, spec: Any, n_tokens: int) -> int:
        """Blocks that a request holds at its end: all are given at once, with room for what a drafter writes ahead."""
        speculative = getattr(self._runner.vllm_config, "speculative_config", None)
        ahead = int(getattr(self._runner.vllm_config, "num_lookahead_tokens", 0) or 0)
        ahead = ahead or int(getattr(speculative, "num_speculative_tokens", 0) or 0)
        n_tokens = min(n_tokens + ahead, self._runner.max_model_len)
        return -(-n_tokens // int(spec.block_size)) + int(getattr(spec, "num_speculative_blocks", 0))

    def _prefill(self, params: list[Any]) -> Any:
        requests = [self._new(name, params[i % len(params)]) for i, name in enumerate(self.ids)]
        scheduled = self._scheduled(len(_PROMPT))
        scheduled.scheduled_new_reqs = requests
        return scheduled

    def _new(self, name: str, params: Any) -> Any:
        kind = "pooling_params" if self._runner.is_pooling_model else "sampling_params"
        fields = {
            "req_id": name, "prompt_token_ids": list(_PROMPT), "mm_features": [], "sampling_params": None,
            "pooling_params": None, "block_ids": tuple(self._take(n) for n in self._n_blocks), "num_computed_tokens": 0,
            "lora_request": None,
        }  # fmt: skip
        return self._sched.NewRequestData(**{**fields, kind: params})

    def _take(self, n: int) -> list[int]:
        first, self._next_block = self._next_block, self._next_block + n
        return list(range(first, self._next_block))

    def _decode(self) -> Any:
        n = len(self.ids)
        cached = self._sched.CachedRequestData.make_empty()
        cached.req_ids = list(self.ids)
        cached.num_computed_tokens = [len(_PROMPT)] * n
        cached.num_output_tokens = [_DECODED] * n
        cached.new_block_ids = [None] * n
        if _sends_tokens_back(self._runner.vllm_config):
            cached.new_token_ids = [[_PROMPT[0]] for _ in self.ids]
        scheduled = self._scheduled(_DECODED)
        scheduled.scheduled_cached_reqs = cached
        return scheduled

    def _scheduled(self, n_tokens: int) -> Any:
        """A step of so many tokens for each request."""
        scheduled = self._sched.SchedulerOutput.make_empty()
        scheduled.num_scheduled_tokens = dict.fromkeys(self.ids, n_tokens)
        scheduled.total_num_scheduled_tokens = n_tokens * len(self.ids)
        if hasattr(scheduled, "num_common_prefix_blocks"):  # earlier versions; one number for each group
            scheduled.num_common_prefix_blocks = [0] * len(self._specs)
        return scheduled

    def _grammar(self) -> Any:
        """A bitmask that allows every token, on the rank that has logits to apply it to."""
        if not import_module("vllm.distributed.parallel_state").get_pp_group().is_last_rank:
            return None
        import numpy as np  # noqa: PLC0415 - vLLM has it

        width = -(-self._runner.model_config.get_vocab_size() // 32)
        bitmask = np.full((len(self.ids), width), -1, dtype=np.int32)
        return self._sched.GrammarOutput(structured_output_request_ids=list(self.ids), grammar_bitmask=bitmask)


def _sends_tokens_back(vllm_config: Any) -> bool:
    """Whether the scheduler tells the first pipeline ranks what the last one has sampled: they do not meet otherwise."""
    is_async = getattr(vllm_config.scheduler_config, "async_scheduling", False)
    return vllm_config.parallel_config.pipeline_parallel_size > 1 and not is_async


def _sampling_params(runner: Any) -> Iterator[Any]:
    """Parameters that together reach every part of the sampler; requests take turns, so most of it runs in one batch."""
    sampling = import_module("vllm").SamplingParams
    everything = sampling.for_sampler_warmup() if hasattr(sampling, "for_sampler_warmup") else _everything(sampling)
    if getattr(runner.cache_config, "kv_sharing_fast_prefill", False):
        everything.prompt_logprobs = None  # vLLM refuses the two together
    yield everything
    yield sampling(temperature=0.0, max_tokens=2)
    yield sampling(temperature=0.8, seed=0, top_k=8, max_tokens=2, allowed_token_ids=[0, 1, 2, 3])


def _everything(sampling: Any) -> Any:
    """For a vLLM that has no such parameters of its own."""
    return sampling(
        temperature=0.9, top_p=0.9, top_k=50, min_p=0.1, frequency_penalty=0.5, presence_penalty=0.5,
        repetition_penalty=1.2, min_tokens=2, logit_bias={0: -1.0}, logprobs=5, prompt_logprobs=1,
    )  # fmt: skip


def _pooling_params(runner: Any) -> Any:
    """Parameters of the first task that the model has."""
    supported = runner.get_supported_tasks()
    choose = getattr(runner.model_config, "get_pooling_task", None)
    params = import_module("vllm").PoolingParams(task=choose(supported) if choose else supported[0])
    params.verify(runner.model_config)
    return params
