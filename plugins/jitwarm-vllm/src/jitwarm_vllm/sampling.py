"""Runner V2's sampler: temperature, and the choice of a token by Gumbel noise, which greedy requests take as well.

The dispatchers of vLLM's own registry (top-k and top-p, rejection) are no part of this: jitwarm adopts them. No size of a batch
is in a key here; what matters is which logits arrive. Where no request of a step asks for processing, they are the model's, in
its dtype and with the vocabulary's padding between rows; else a compact copy in fp32.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from jitwarm import Choices, IntClass, JitKernel, TensorSpec, WarmupConfig, trace_dispatch
from jitwarm_vllm import models
from jitwarm_vllm.declaring import VllmKernel, declared

_MODULE = "vllm.v1.worker.gpu.sample.gumbel"
_PADDING = 64  # vLLM pads the vocabulary of head and embedding to a multiple
_GUMBEL_BLOCK = 1024  # logits per program


class SamplerKernel(VllmKernel):
    """What both have in common; `spaces` are the inputs of `dispatch` that vary while serving."""

    spaces: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether runner V2 samples: the settings `use_v2_model_runner` and `model`."""
        chosen = models.settings(config)
        return chosen.use_v2_model_runner and bool(chosen.model)

    def is_for_rank(self, config: WarmupConfig) -> bool:
        """Only the last pipeline stage has logits."""
        return config.is_last_pp_rank

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """For the model's vocabulary."""
        if not self.is_reached(config):
            return []
        document = models.load(models.settings(config).model)
        vocab_size = int({**document, **(document.get("text_config") or {})}["vocab_size"])
        return trace_dispatch(
            self.dispatch, vocab_size=vocab_size, dtype=models.configuration(config).dtype, **self.spaces
        )


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

    def dispatch(self, *, vocab_size: int, dtype: str) -> CompileKey:
        """As `apply_temperature` launches it; processed logits are in fp32 whatever the model's are."""
        del dtype
        return self.CompileKey("float32", IntClass.of(vocab_size), IntClass.of(vocab_size))

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes."""
        return {
            "logits_ptr": TensorSpec(key.dtype, ("tokens", "vocab")),
            "logits_stride": key.logits_stride,
            "expanded_idx_mapping_ptr": TensorSpec("int32", ("tokens",)),
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
    spaces = {"is_processed": Choices(False, True)}  # noqa: RUF012 - never mutated
    derived = {"local_max_stride": ("local_argmax_stride",)}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        dtype: str
        logits_stride: IntClass
        vocab_size: IntClass
        local_argmax_stride: IntClass

    def dispatch(self, *, vocab_size: int, dtype: str, is_processed: bool) -> CompileKey:
        """As `gumbel_sample` is launched: processed logits where some request asks for it, else the model's."""
        padded = -(-vocab_size // _PADDING) * _PADDING
        return self.CompileKey(
            dtype="float32" if is_processed else dtype,
            logits_stride=IntClass.of(vocab_size if is_processed else padded),
            vocab_size=IntClass.of(vocab_size),
            local_argmax_stride=IntClass.of(-(-vocab_size // _GUMBEL_BLOCK)),
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
            "expanded_idx_mapping_ptr": TensorSpec("int32", ("tokens",)),
            "seeds_ptr": TensorSpec("int64", ("requests",)),
            "pos_ptr": TensorSpec("int64", ("tokens",)),
            "temp_ptr": TensorSpec("float32", ("requests",)),
            "vocab_size": key.vocab_size,
        }


def kernels() -> list[JitKernel]:
    """Both declarations, or why not."""
    return [declared(Temperature), declared(GumbelSample)]
