"""Prefill without a paged cache, `context_attention_fwd`: encoders, vision encoders, and NVFP4 pure prefill where vLLM has it.

The kernel is compiled per layer variant. No length of a batch or of a sequence is in its key.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton

from jitwarm import (
    AttentionGroup,
    Choices,
    IntClass,
    IntRange,
    JitKernel,
    Skipped,
    TensorSpec,
    WarmupConfig,
    current_target,
    rows,
    trace_dispatch,
)
from jitwarm_vllm import models
from jitwarm_vllm.declaring import Absent, VllmKernel, declared, entries
from jitwarm_vllm.layers import cache_dtype, triton_layers
from jitwarm_vllm.platform import answering_for

_LARGE_HEAD = 512  # elements; such heads get small tiles
_SMALL_HEAD = 64  # elements; such heads get few warps


class PrefillAttention(VllmKernel):
    """Encoder-only and encoder layers on TRITON_ATTN, and vision encoders with `mm_encoder_attn_backend = TRITON_ATTN`."""

    name = "prefill_attention"
    place = ("vllm.v1.attention.ops.triton_prefill_attention", "_fwd_kernel")
    options = ("num_warps", "num_stages")
    fixed = {"SINKS_BIAS_KEY0": False, "num_stages": 1}  # noqa: RUF012 - never mutated
    derived = {"USE_SOFTCAP": ("softcap",)}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside.

        `sinks_dtype` is the query's where there are no sinks. `softcap` is 0.0 for none, and for every kernel without one.
        """

        dtype: str
        sinks_dtype: str
        stride_qbs: IntClass
        stride_qh: IntClass
        stride_kbs: IntClass
        stride_kh: IntClass
        stride_vbs: IntClass
        stride_vh: IntClass
        stride_obs: IntClass
        stride_oh: IntClass
        kv_group_num: int
        block_m: int
        block_dmodel: int
        block_n: int
        is_causal: bool
        sliding_window_q: int
        sliding_window_k: int
        use_sinks: bool
        lk: int
        num_warps: int
        softcap: float

    def dispatch(
        self,
        *,
        max_query_len: int,
        n_heads: int,
        n_kv_heads: int,
        head_size: int,
        dtype: str,
        sinks_dtype: str,
        is_causal: bool,
        window_q: int,
        window_k: int,
        block: int,
        narrow_block: int,
        is_fused: bool,
        softcap: float,
    ) -> CompileKey:
        """What `context_attention_fwd` chooses.

        Args:
            max_query_len: Tokens of the longest sequence; today's vLLM looks at no length.
            n_heads: Query heads on this rank.
            n_kv_heads: Key and value heads on this rank.
            head_size: Elements per head.
            dtype: Of query, key, value and output.
            sinks_dtype: Empty for none.
            is_causal: Decoder layers are.
            window_q: Tokens seen before the own one, in vLLM's spelling: -1 or 0 for all.
            window_k: Tokens seen after it.
            block: Rows of a tile, by vLLM's `get_block_size`.
            narrow_block: Its columns; RDNA GPUs like fewer.
            is_fused: Whether query, key and value are views of one projection.
            softcap: Of the logits, as far as the kernel is compiled for it.
        """
        del max_query_len
        if head_size >= _LARGE_HEAD:
            block, narrow_block = min(block, 32), min(narrow_block, 32)
        fused = (n_heads + 2 * n_kv_heads) * head_size
        query, output, key = n_heads * head_size, n_heads * head_size, n_kv_heads * head_size
        if is_fused:
            query, key = fused, fused
        head = IntClass.of(head_size)
        return self.CompileKey(
            dtype=dtype,
            sinks_dtype=sinks_dtype or dtype,
            stride_qbs=IntClass.of(query),
            stride_qh=head,
            stride_kbs=IntClass.of(key),
            stride_kh=head,
            stride_vbs=IntClass.of(key),
            stride_vh=head,
            stride_obs=IntClass.of(output),
            stride_oh=head,
            kv_group_num=n_heads // n_kv_heads,
            block_m=block,
            block_dmodel=triton.next_power_of_2(head_size),
            block_n=narrow_block,
            is_causal=is_causal,
            sliding_window_q=window_q,
            sliding_window_k=window_k,
            use_sinks=bool(sinks_dtype),
            lk=head_size,
            num_warps=4 if head_size <= _SMALL_HEAD else 8,
            softcap=softcap,
        )

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether there is such a layer."""
        return any(cls.variants(config))

    @classmethod
    def variants(cls, config: WarmupConfig) -> Iterator[dict[str, Any]]:
        """The distinct layers, as inputs of `dispatch`."""
        for group in triton_layers(config, "encoder", "encoder_only"):
            reach = -1 if group.sliding_window is None else group.sliding_window - 1
            yield {**_shape(group), "is_causal": False, "window_q": reach, "window_k": reach, "softcap": 0.0}
        for group in triton_layers(config, "vit"):
            yield {**_shape(group), "is_causal": False, "window_q": 0, "window_k": 0, "softcap": 0.0}

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """Each layer variant, for every sequence length that a step can have."""
        variants = [{**variant, "softcap": self._softcap(variant["softcap"])} for variant in self.variants(config)]
        if not variants:
            return []
        dtype = models.configuration(config).dtype
        return trace_dispatch(
            self.dispatch,
            rows(*variants),
            max_query_len=IntRange(1, config.max_num_batched_tokens + 1),
            dtype=dtype,
            is_fused=Choices(False, True),
            **self._blocks(dtype),
        )

    def _blocks(self, dtype: str) -> dict[str, int]:
        """What vLLM itself answers for the target."""
        import torch

        with answering_for(current_target()):
            block = self.module.get_block_size(getattr(torch, dtype))
            prefers_narrow = getattr(self.module, "_prefer_narrow_kv_tile", lambda: False)
            return {"block": block, "narrow_block": min(block, 32) if prefers_narrow() else block}

    def _softcap(self, value: float) -> float:
        """A cap that is an argument like any other is compiled for once; one that is a constexpr, for each value."""
        is_constexpr = any(p.is_constexpr and p.name.lower() == "softcap" for p in self.kernel.params)
        return value if is_constexpr else float(value > 0)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes: batches of [tokens, heads, head size], and where each sequence begins and how long it is."""
        values = TensorSpec(key.dtype, ("tokens", "heads", key.lk))
        sequences = TensorSpec("int32", ("n_seqs",))
        return entries(
            self,
            {
                **self.named(key),
                "Q": values,
                "K": values,
                "V": values,
                "Out": values,
                "Sinks": TensorSpec(key.sinks_dtype, ("heads",)),
                "sm_scale": 1.0,
                "B_Start_Loc": sequences,
                "B_Seqlen": sequences,
                "USE_SOFTCAP": key.softcap > 0,
            },
        )


class Nvfp4PrefillAttention(PrefillAttention):
    """Decoder layers on TRITON_ATTN whose KV cache is NVFP4: a batch of prefills alone goes past the cache.

    vLLM's newer than 0.33 have this way, and then `context_attention_fwd` takes a soft cap.
    """

    name = "nvfp4_prefill_attention"

    @classmethod
    def variants(cls, config: WarmupConfig) -> Iterator[dict[str, Any]]:
        """Without the layers that go through the cache all the same: sharing, ALiBi, sinks, chunks."""
        for group in triton_layers(config, "decoder"):
            stays = group.shares_kv or group.has_alibi or group.sinks_dtype or group.chunk_lookback != -1
            if cache_dtype(config, group) != "nvfp4" or stays:
                continue
            windows = (-1, -1) if group.sliding_window is None else (group.sliding_window - 1, 0)
            yield {**_shape(group), "is_causal": True, "window_q": windows[0], "window_k": windows[1],
                   "softcap": group.logits_soft_cap}  # fmt: skip


def _shape(group: AttentionGroup) -> dict[str, Any]:
    return {
        "n_heads": group.n_heads,
        "n_kv_heads": group.n_kv_heads,
        "head_size": group.head_size,
        "sinks_dtype": group.sinks_dtype,
    }


def nvfp4(declaration: type[Nvfp4PrefillAttention] = Nvfp4PrefillAttention) -> JitKernel:
    """The declaration where layers do go past an NVFP4 cache: `context_attention_fwd` then takes a soft cap, as they have one."""
    kernel = declared(declaration)
    if isinstance(kernel, Absent):
        return kernel
    if "softcap" not in inspect.signature(kernel.module.context_attention_fwd).parameters:
        reason = "context_attention_fwd takes no soft cap, so no layer goes past an NVFP4 cache"
        return Absent(declaration, Skipped(f"absent in this version of vLLM: {reason}"))
    return kernel


def kernels() -> list[JitKernel]:
    """Both declarations, or why not."""
    return [declared(PrefillAttention), nvfp4()]
