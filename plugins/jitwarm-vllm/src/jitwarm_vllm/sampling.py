"""Runner V2's sampler: temperature, and the choice of a token by Gumbel noise, which greedy requests take as well.

The dispatchers of vLLM's own registry (top-k and top-p, rejection) are no part of this: jitwarm adopts them. What else requests
ask for is in `processing`. What matters is which logits arrive. Where no request of a step asks for processing, they are the
model's, in its dtype and with the vocabulary's padding between rows; else a copy in fp32, which is compact, but for a single row:
`torch.empty_like` then keeps the stride that it had.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jitwarm import Choices, IntClass, JitKernel, NeedsModel, TensorSpec, WarmupConfig, trace_dispatch
from jitwarm_vllm import models
from jitwarm_vllm.declaring import VllmKernel, declared

_MODULE = "vllm.v1.worker.gpu.sample.gumbel"
_RUNNER_V2 = "vllm.v1.worker.gpu."
_PADDING = 64  # vLLM pads the vocabulary of head and embedding to a multiple
_GUMBEL_BLOCK = 1024  # logits per program
# Which request each row of logits belongs to.
REQUEST_OF_ROW = TensorSpec("int64", ("tokens",))


@dataclass(frozen=True)
class Sampled:
    """What the sampler takes from the model and the engine.

    Attributes:
        vocab_size: Without padding.
        dtype: Of the model's logits.
        max_model_len: Tokens that the state of a request has room for; None where nobody has said it.
        max_logprobs: Most that a request may ask for beside the token's own.
        logprobs_mode: vLLM's `--logprobs-mode`.
    """

    vocab_size: int
    dtype: str
    max_model_len: int | None
    max_logprobs: int
    logprobs_mode: str

    def row_stride(self, *, is_processed: bool, is_lone: bool) -> int:
        """Elements from one row of logits to the next, also where there is a single row."""
        return self.vocab_size if is_processed and not is_lone else -(-self.vocab_size // _PADDING) * _PADDING


def sampled(config: WarmupConfig) -> Sampled | None:
    """From the settings `use_v2_model_runner` and `model`, else from the engine's runner; None where runner V2 does not sample.

    Raises:
        NeedsModel: The engine has no runner yet.
        ModelConfigError: The settings or the model's `config.json` are wrong.
    """
    chosen = models.settings(config)
    if chosen.use_v2_model_runner and chosen.model:
        document = models.load(chosen.model)
        read = models.configuration(config)
        vocab_size = int({**document, **(document.get("text_config") or {})}["vocab_size"])
        return Sampled(vocab_size, read.dtype, read.max_model_len, chosen.max_logprobs, chosen.logprobs_mode)
    return _of_engine(config)


def _of_engine(config: WarmupConfig) -> Sampled | None:
    try:
        runner = config.require_runner()
    except NeedsModel:
        if config.has_layers:
            return None  # there is no engine, and nobody has said what it will run
        raise
    if not type(runner).__module__.startswith(_RUNNER_V2):
        return None
    model = runner.model_config
    return Sampled(
        int(runner.vocab_size),
        config.dtype,
        int(runner.max_model_len),
        int(model.max_logprobs),
        str(model.logprobs_mode),
    )


class SamplerKernel(VllmKernel):
    """What the sampler's kernels have in common."""

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether runner V2 samples."""
        return sampled(config) is not None

    def is_for_rank(self, config: WarmupConfig) -> bool:
        """Only the last pipeline stage has logits."""
        return config.is_last_pp_rank

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """For the model's vocabulary."""
        of_model = sampled(config)
        return [] if of_model is None else trace_dispatch(self.dispatch, **self.inputs(of_model))

    def inputs(self, of_model: Sampled) -> Mapping[str, Any]:
        """What `dispatch` is given: the model's, and spaces of what varies while serving. A lone row is a step's only one."""
        return {"of_model": of_model, "is_lone": Choices(False, True)}

    def launch_args(self, key: Any) -> dict[str, Any]:
        """What the launch passes: nothing but the key and what is fixed."""
        return self.named(key)


class Temperature(SamplerKernel):
    """Divides fp32 logits where a request has a temperature."""

    name = "sampler_temperature"
    place = (_MODULE, "_temperature_kernel")
    fixed = {"BLOCK_SIZE": 8192}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        dtype: str
        logits_stride: IntClass
        vocab_size: IntClass

    def dispatch(self, *, of_model: Sampled, is_lone: bool) -> CompileKey:
        """As `apply_temperature` launches it; processed logits are in fp32 whatever the model's are."""
        stride = of_model.row_stride(is_processed=True, is_lone=is_lone)
        return self.CompileKey("float32", IntClass.of(stride), IntClass.of(of_model.vocab_size))

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes."""
        return {
            "logits_ptr": TensorSpec(key.dtype, ("tokens", "vocab")),
            "logits_stride": key.logits_stride,
            "expanded_idx_mapping_ptr": REQUEST_OF_ROW,
            "temperature_ptr": TensorSpec("float32", ("requests",)),
            "vocab_size": key.vocab_size,
        }


class GumbelSample(SamplerKernel):
    """Takes the largest logit after noise; without noise where the temperature is 0. Drafts are others."""

    name = "sampler_gumbel"
    place = (_MODULE, "_gumbel_sample_kernel")
    fixed = {  # noqa: RUF012 - the target's sampler keeps no logits, and has applied the temperature before
        "BLOCK_SIZE": _GUMBEL_BLOCK, "IS_DRAFTING": False, "APPLY_TEMPERATURE": False, "USE_FP64": False,
        "PER_TOKEN_COL": False, "logits_cache_stride_0": 0, "logits_cache_stride_1": 0, "logits_cache_source_stride": 0,
    }  # fmt: skip
    derived = {"local_max_stride": ("local_argmax_stride",)}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        dtype: str
        logits_stride: IntClass
        vocab_size: IntClass
        local_argmax_stride: IntClass

    def inputs(self, of_model: Sampled) -> Mapping[str, Any]:
        """Both kinds of logits."""
        return {**super().inputs(of_model), "is_processed": Choices(False, True)}

    def dispatch(self, *, of_model: Sampled, is_lone: bool, is_processed: bool) -> CompileKey:
        """As `gumbel_sample` is launched: processed logits where some request asks for it, else the model's."""
        return self.CompileKey(
            dtype="float32" if is_processed else of_model.dtype,
            logits_stride=IntClass.of(of_model.row_stride(is_processed=is_processed, is_lone=is_lone)),
            vocab_size=IntClass.of(of_model.vocab_size),
            local_argmax_stride=IntClass.of(-(-of_model.vocab_size // _GUMBEL_BLOCK)),
        )

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes."""
        return {
            "local_argmax_ptr": TensorSpec("int64", ("tokens", "blocks")),
            "local_argmax_stride": key.local_argmax_stride,
            "local_max_ptr": TensorSpec("float32", ("tokens", "blocks")),
            "local_max_stride": key.local_argmax_stride,
            "logits_cache_ptr": None,
            "logits_cache_col_ptr": None,
            "logits_cache_source_ptr": None,
            "logits_ptr": TensorSpec(key.dtype, ("tokens", "vocab")),
            "logits_stride": key.logits_stride,
            "expanded_idx_mapping_ptr": REQUEST_OF_ROW,
            "seeds_ptr": TensorSpec("int64", ("requests",)),
            "pos_ptr": TensorSpec("int64", ("tokens",)),
            "temp_ptr": TensorSpec("float32", ("requests",)),
            "vocab_size": key.vocab_size,
        }


def kernels() -> list[JitKernel]:
    """Both declarations, or why not."""
    return [declared(Temperature), declared(GumbelSample)]
