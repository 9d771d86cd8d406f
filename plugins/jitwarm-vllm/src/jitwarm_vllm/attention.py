"""Paged attention on the backend TRITON_ATTN: `kernel_unified_attention` in its 2D and 3D form, and `reduce_segments`.

`choose` follows vLLM's host function from a batch to a launch; the kernels' `dispatch` make keys of what it chose.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import triton

from jitwarm import IntClass, JitKernel, TensorSpec, WarmupConfig, trace_dispatch
from jitwarm_vllm.batches import Batch, Split, batches
from jitwarm_vllm.declaring import VllmKernel, declared, entries
from jitwarm_vllm.layers import triton_layers

_MODULE = "vllm.v1.attention.ops.triton_unified_attention"


@dataclass(frozen=True)
class Launch:
    """What vLLM's host function chooses for one batch. Tiles in tokens."""

    is_3d: bool
    is_wide: bool
    block_m: int
    block_q: int
    tile_size: int
    n_segments: int


def choose(layer: Batch, split: Split, num_seqs: int, max_query_len: int, num_tokens: int) -> Launch:
    """As `unified_attention` does.

    Args:
        layer: What the layer says.
        split: What the metadata builder says of split-K.
        num_seqs: Sequences in the batch.
        max_query_len: Tokens of the longest query.
        num_tokens: Tokens of all queries.
    """
    group = layer.num_queries_per_kv
    is_wide = layer.can_be_wide and max_query_len > 1
    block_m = 32 if is_wide else 16 if group <= 16 else triton.next_power_of_2(group)
    block_q = block_m // group
    segments, rows = split.segments_of(num_seqs, num_tokens)
    is_3d = (
        not split.is_off
        and (max_query_len == 1 or (max_query_len <= split.max_query_len and not is_wide))
        and num_seqs * -(-max_query_len // block_q) <= split.threshold
        and num_tokens <= rows
    )
    if is_3d:
        return Launch(True, is_wide, block_m, block_q, layer.tile_decode, segments)
    return Launch(False, is_wide, block_m, block_q, 128 if is_wide else layer.tile_prefill, 1)


def traced(kernel: VllmKernel, config: WarmupConfig, wanted: Callable[[Launch], bool]) -> list[Any]:
    """The kernel's keys for each distinct layer and every batch that a step can have and for which `wanted` holds."""
    keys: dict[str, Any] = {}
    for domain in batches(config, kernel.module):
        if not kernel.is_for_layer(domain["layer"], domain["split"]):
            continue
        when = partial(_is_wanted, wanted, domain["when"])
        keys |= {repr(key): key for key in trace_dispatch(kernel.dispatch, **{**domain, "when": when})}
    return list(keys.values())


def _is_wanted(
    wanted: Callable[[Launch], bool], can_meet: Callable[..., bool],
    layer: Batch, split: Split, num_seqs: int, max_query_len: int, num_tokens: int,
) -> bool:  # fmt: skip
    if not can_meet(num_seqs=num_seqs, max_query_len=max_query_len, num_tokens=num_tokens):
        return False
    return wanted(choose(layer, split, num_seqs, max_query_len, num_tokens))


def _is_narrow(launch: Launch) -> bool:
    return not launch.is_wide


def _is_wide(launch: Launch) -> bool:
    return launch.is_wide


def _is_3d(launch: Launch) -> bool:
    return launch.is_3d


class UnifiedAttention(VllmKernel):
    """Decoder layers, with the launch options that Triton chooses."""

    name = "unified_attention"
    place = (_MODULE, "kernel_unified_attention")
    # What no layer of this backend asks for on its own: other masks, bias, fused output quantization, tensor descriptors.
    fixed = {  # noqa: RUF012 - never mutated
        "USE_QQ_BIAS": False, "qq_bias_stride_0": 0, "USE_PER_SEQ_CAUSAL": False, "USE_MM_PREFIX": False, "MAX_MM_RANGES": 0,
        "R_SWA_WINDOW": 0, "USE_R_SWA": False, "USE_FP8": False, "USE_TD": False, "USE_TD_QO": False,
        "MM_PREFIX_CLAMP_SW": False, "stride_k_cache_3": 1, "stride_v_cache_3": 1, "USE_CAUSAL": True,
        "USE_ALIBI_SQRT": False,
    }  # fmt: skip
    derived = {  # noqa: RUF012 - never mutated
        "softcap": ("use_softcap",), "Q_IS_FP8": ("query_dtype",), "USE_SINKS": ("sink_dtype",),
        "stride_v_cache_0": ("stride_k_cache_0",), "stride_v_cache_1": ("stride_k_cache_1",),
        "stride_v_cache_2": ("stride_k_cache_2",),
    }  # fmt: skip

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside. `sink_dtype` is empty for no sinks."""

        query_dtype: str
        output_dtype: str
        key_cache_dtype: str
        sink_dtype: str
        num_query_heads: int
        num_queries_per_kv: int
        block_table_stride: IntClass
        query_stride_0: IntClass
        query_stride_1: IntClass
        output_stride_0: IntClass
        output_stride_1: IntClass
        block_size: int
        tile_size: int
        head_size: int
        head_size_padded: int
        use_alibi_slopes: bool
        use_softcap: bool
        sliding_window: int
        stride_k_cache_0: IntClass
        stride_k_cache_1: IntClass
        stride_k_cache_2: IntClass
        block_q: int
        num_seqs: IntClass
        block_m: int
        num_segments_per_seq: int
        is_3d: bool
        kv_quant_mode: str
        chunk_lookback: int
        chunk_size: int

    def dispatch(self, *, layer: Batch, split: Split, num_seqs: int, max_query_len: int, num_tokens: int) -> CompileKey:
        """What `unified_attention` launches for a batch; see `choose`."""
        launch = choose(layer, split, num_seqs, max_query_len, num_tokens)
        return self._key(layer, launch, num_seqs)

    def _key(self, layer: Batch, launch: Launch, num_seqs: int) -> CompileKey:
        return self.CompileKey(
            query_dtype=layer.query_dtype,
            output_dtype=layer.dtype,
            key_cache_dtype=layer.cache_dtype,
            sink_dtype=layer.sink_dtype,
            num_query_heads=layer.n_heads,
            num_queries_per_kv=layer.num_queries_per_kv,
            block_table_stride=layer.block_table_stride,
            query_stride_0=layer.query_stride,
            query_stride_1=layer.head_stride,
            output_stride_0=layer.output_stride,
            output_stride_1=layer.head_stride,
            block_size=layer.block_size,
            tile_size=launch.tile_size,
            head_size=layer.head_size,
            head_size_padded=triton.next_power_of_2(layer.head_size),
            use_alibi_slopes=layer.has_alibi,
            use_softcap=layer.has_softcap,
            sliding_window=layer.sliding_window,
            stride_k_cache_0=layer.cache_block_stride,
            stride_k_cache_1=layer.cache_token_stride,
            stride_k_cache_2=layer.cache_head_stride,
            block_q=launch.block_q,
            num_seqs=IntClass.of(num_seqs),
            block_m=launch.block_m,
            num_segments_per_seq=launch.n_segments,
            is_3d=launch.is_3d,
            kv_quant_mode=layer.kv_quant_mode,
            chunk_lookback=layer.chunk_lookback,
            chunk_size=layer.chunk_size,
        )

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether a decoder layer runs on TRITON_ATTN."""
        return bool(triton_layers(config, "decoder"))

    def is_for_layer(self, layer: Batch, split: Split) -> bool:
        """Whether some batch of this layer launches it."""
        del layer, split
        return True

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """For each distinct layer: every batch that a step can have."""
        return traced(self, config, _is_narrow)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes. Scales are pointers to fp32 for every cache; the output's is 1.0."""
        from vllm.v1.kv_cache_interface import KVQuantMode

        pages = TensorSpec(key.key_cache_dtype, ("blocks", key.block_size, "heads", key.head_size))
        segments = (
            TensorSpec("float32", ("tokens", key.num_query_heads, key.num_segments_per_seq)) if key.is_3d else None
        )
        scale, counts = TensorSpec("float32", ("n_seqs", "heads")), TensorSpec("int32", ("n_seqs",))
        is_fp8 = key.query_dtype.startswith("float8")
        strides = {f"stride_v_cache_{i}": getattr(key, f"stride_k_cache_{i}") for i in range(3)}
        return entries(
            self,
            {
                **self.named(key),
                **strides,
                "output_ptr": TensorSpec(key.output_dtype, ("tokens", "heads", key.head_size)),
                "query_ptr": TensorSpec(key.query_dtype, ("tokens", "heads", key.head_size)),
                "key_cache_ptr": pages,
                "value_cache_ptr": pages,
                "sink_ptr": TensorSpec(key.sink_dtype, ("heads",)) if key.sink_dtype else None,
                "block_tables_ptr": TensorSpec("int32", ("n_seqs", "blocks")),
                "seq_lens_ptr": counts,
                "alibi_slopes_ptr": TensorSpec("float32", ("heads",)) if key.use_alibi_slopes else None,
                "qq_bias_ptr": None,
                "scale": 1.0,
                "q_scale": scale if is_fp8 else None,
                "k_scale": scale,
                "v_scale": scale,
                "out_scale": 1.0,
                "softcap": 1.0 if key.use_softcap else 0,  # vLLM passes a layer's missing cap as the integer
                "USE_SINKS": bool(key.sink_dtype),
                "Q_IS_FP8": is_fp8,
                "per_seq_causal_ptr": None,
                "mm_prefix_range_ptr": None,
                "rswa_prefix_lens_ptr": counts,
                "query_start_len_ptr": counts,
                "segm_output_ptr": segments,
                "segm_max_ptr": segments,
                "segm_expsum_ptr": segments,
                "KV_QUANT_MODE": KVQuantMode[key.kv_quant_mode],
            },
        )


class WideUnifiedAttention(UnifiedAttention):
    """The same kernel as Blackwell GPUs launch it for queries of more than one token and heads of 256: with 8 warps, 2 stages."""

    name = "unified_attention_wide"
    options = ("num_warps", "num_stages")
    fixed = {**UnifiedAttention.fixed, "num_warps": 8, "num_stages": 2}  # noqa: RUF012 - never mutated

    def dispatch(
        self, *, layer: Batch, split: Split, num_seqs: int, max_query_len: int, num_tokens: int
    ) -> UnifiedAttention.CompileKey:
        """What `unified_attention` launches for a batch; see `choose`."""
        launch = choose(layer, split, num_seqs, max_query_len, num_tokens)
        return self._key(layer, launch, num_seqs)

    def is_for_layer(self, layer: Batch, split: Split) -> bool:
        """Other GPUs and other heads have no such launch, and neither have queries of one token."""
        del split
        return layer.can_be_wide

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """For each distinct layer: every batch with a longer query."""
        return traced(self, config, _is_wide) if config.max_num_batched_tokens > 1 else []


class ReduceSegments(VllmKernel):
    """What follows each 3D launch."""

    name = "reduce_segments"
    place = (_MODULE, "reduce_segments")
    fixed = {"USE_FP8": False}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside."""

        output_dtype: str
        num_seqs: IntClass
        num_query_heads: int
        output_stride_0: IntClass
        output_stride_1: IntClass
        block_table_stride: IntClass
        tile_size: int
        head_size: int
        head_size_padded: int
        block_q: int
        num_segments_per_seq: int

    def dispatch(self, *, layer: Batch, split: Split, num_seqs: int, max_query_len: int, num_tokens: int) -> CompileKey:
        """What follows a batch that is launched in 3D; nothing follows others."""
        launch = choose(layer, split, num_seqs, max_query_len, num_tokens)
        return self.CompileKey(
            output_dtype=layer.dtype,
            num_seqs=IntClass.of(num_seqs),
            num_query_heads=layer.n_heads,
            output_stride_0=layer.output_stride,
            output_stride_1=layer.head_stride,
            block_table_stride=layer.block_table_stride,
            tile_size=launch.tile_size,
            head_size=layer.head_size,
            head_size_padded=triton.next_power_of_2(layer.head_size),
            block_q=launch.block_q,
            num_segments_per_seq=launch.n_segments,
        )

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether a decoder layer runs on TRITON_ATTN."""
        return UnifiedAttention.is_reached(config)

    def is_for_layer(self, layer: Batch, split: Split) -> bool:
        """Whether 3D launches are allowed."""
        del layer
        return not split.is_off

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """For each distinct layer: every batch that is launched in 3D."""
        return traced(self, config, _is_3d)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes."""
        segments = TensorSpec("float32", ("tokens", key.num_query_heads, key.num_segments_per_seq))
        counts = TensorSpec("int32", ("n_seqs",))
        return {
            **self.named(key),
            "output_ptr": TensorSpec(key.output_dtype, ("tokens", "heads", key.head_size)),
            "segm_output_ptr": segments,
            "segm_max_ptr": segments,
            "segm_expsum_ptr": segments,
            "seq_lens_ptr": counts,
            "query_start_len_ptr": counts,
            "out_scale_inv": 1.0,
        }


def kernels() -> list[JitKernel]:
    """The declarations, or why not."""
    return [declared(UnifiedAttention), declared(WideUnifiedAttention), declared(ReduceSegments)]
