"""What a layer on TRITON_ATTN and the server's limits say of the batches that reach its attention."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from jitwarm import AttentionGroup, Choices, IntClass, IntRange, Unresolved, WarmupConfig, current_target
from jitwarm_vllm import models, real
from jitwarm_vllm.layers import cache_dtype, triton_layers
from jitwarm_vllm.platform import answering_for

_BACKEND = "vllm.v1.attention.backends.triton_attn"
_WIDE_SEGMENTS = 64  # on GPUs of capability 12.0, for batches that do not fill them


@dataclass(frozen=True)
class Batch:
    """What one layer contributes to every launch. Strides as Triton sees them; tiles in tokens.

    Attributes:
        query_dtype: fp8 where the cache is.
        sink_dtype: Empty for none.
        sliding_window: Tokens, 0 for all.
        kv_quant_mode: Name of a member of vLLM's `KVQuantMode`.
        is_blackwell: Whether the GPU's compute capability is 10.x.
    """

    dtype: str
    query_dtype: str
    cache_dtype: str
    sink_dtype: str
    n_heads: int
    num_queries_per_kv: int
    head_size: int
    block_size: int
    sliding_window: int
    chunk_lookback: int
    chunk_size: int
    has_alibi: bool
    has_softcap: bool
    kv_quant_mode: str
    tile_prefill: int
    tile_decode: int
    is_blackwell: bool
    block_table_stride: IntClass
    query_stride: IntClass
    head_stride: IntClass
    output_stride: IntClass
    cache_block_stride: IntClass
    cache_token_stride: IntClass
    cache_head_stride: IntClass

    @property
    def can_be_wide(self) -> bool:
        """Whether vLLM has other tiles for queries of more than one token."""
        return self.is_blackwell and self.head_size == 256 and self.num_queries_per_kv <= 16


@dataclass(frozen=True)
class Split:
    """When vLLM splits a sequence's keys among programs (the 3D form), as its metadata builder decides once.

    Attributes:
        threshold: Query blocks up to which it does.
        max_query_len: Tokens per query up to which it does.
        n_segments: Parts per sequence.
        n_rows: Query tokens that the scratch holds.
        n_narrow_segments: Parts per sequence for batches of more than `n_wide_seqs` sequences.
        n_wide_seqs: 0 where every batch has `n_segments`.
        is_off: Batch invariance forbids it.
    """

    threshold: int
    max_query_len: int
    n_segments: int
    n_rows: int
    n_narrow_segments: int
    n_wide_seqs: int
    is_off: bool

    @property
    def n_distinct_tokens(self) -> int:
        """The fewest query tokens that no scratch holds; more are launched alike."""
        return self.n_rows * self.n_segments // self.n_narrow_segments + 1

    def segments_of(self, num_seqs: int, num_tokens: int) -> tuple[int, int]:
        """Parts per sequence for this batch, and the query tokens that the scratch then holds."""
        if self.n_wide_seqs > 0 and (num_seqs > self.n_wide_seqs or num_tokens > self.n_rows):
            return self.n_narrow_segments, self.n_rows * self.n_segments // self.n_narrow_segments
        return self.n_segments, self.n_rows


def batches(config: WarmupConfig, ops: Any) -> Iterator[dict[str, Any]]:
    """For each distinct decoder layer: the inputs of `dispatch`, and when they can meet.

    Args:
        config: As kernels are asked.
        ops: vLLM's module with `unified_attention`.

    Raises:
        Unresolved: A cache that is not declared here, or a GPU of whose size nothing is known.
    """
    groups = triton_layers(config, "decoder")
    if not groups:
        return
    config = models.configuration(config)
    with answering_for(current_target()):
        seen = [(_layer(group, config, ops), _split(group, config, ops)) for group in groups]
    for layer, split in dict.fromkeys(seen):
        yield {
            "layer": layer,
            "split": split,
            "num_seqs": IntRange(1, min(config.max_num_seqs, config.max_num_batched_tokens) + 1),
            # A longer query is launched like the shortest that is too long to be split.
            "max_query_len": Choices(*range(1, min(split.max_query_len + 1, config.max_num_batched_tokens) + 1)),
            "num_tokens": IntRange(1, split.n_distinct_tokens + 1),
            "when": partial(can_meet, split.n_distinct_tokens, config.max_num_batched_tokens),
        }


def can_meet(n_distinct: int, n_most: int, num_seqs: int, max_query_len: int, num_tokens: int) -> bool:
    """One query is the longest, each of the others has a token at least. The last count stands for all above it."""
    n_fewest = num_seqs + max_query_len - 1
    return n_fewest <= n_most and min(n_fewest, n_distinct) <= num_tokens <= num_seqs * max_query_len


def _layer(group: AttentionGroup, config: WarmupConfig, ops: Any) -> Batch:
    mode, stored, query = _cache(group, config)
    heads, size = group.n_heads, group.head_size
    window = group.sliding_window or 0
    lookback = group.chunk_lookback if window else -1
    itemsize = 1 if query.startswith("float8") else 4 if query == "float32" else 2
    tile_size = ops._get_tile_size  # noqa: SLF001 - vLLM's own rule is exact
    pages = -(-(config.max_model_len or 0) // group.block_size)
    if not pages:
        raise Unresolved("max_model_len is not known: it decides the width of the block table", "set max_model_len")
    width = (heads + 2 * group.n_kv_heads) * size
    return Batch(
        dtype=config.dtype,
        query_dtype=query,
        cache_dtype=stored,
        sink_dtype=group.sinks_dtype,
        n_heads=heads,
        num_queries_per_kv=heads // group.n_kv_heads,
        head_size=size,
        block_size=group.block_size,
        sliding_window=window,
        chunk_lookback=lookback,
        chunk_size=window // (lookback + 1) if lookback > -1 else -1,
        has_alibi=group.has_alibi,
        has_softcap=group.logits_soft_cap > 0,
        kv_quant_mode=mode,
        tile_prefill=tile_size(size, window, itemsize, is_prefill=True),
        tile_decode=tile_size(size, window, itemsize, is_prefill=False),
        is_blackwell=_capability()[0] == 10,
        block_table_stride=IntClass.of(_table_width(pages, group.block_size)),
        query_stride=IntClass.of(heads * size if query.startswith("float8") else width),
        head_stride=IntClass.of(size),
        output_stride=IntClass.of(heads * size),
        cache_block_stride=IntClass.of(2 * size * group.block_size * group.n_kv_heads),
        cache_token_stride=IntClass.of(2 * size),
        cache_head_stride=IntClass.of(2 * size * group.block_size),
    )


def _cache(group: AttentionGroup, config: WarmupConfig) -> tuple[str, str, str]:
    """Quantization mode, dtype of the cache as the kernel sees it, dtype of the query."""
    stored = cache_dtype(config, group)
    if stored in ("auto", config.dtype):
        return "NONE", config.dtype, config.dtype
    if stored in ("float16", "bfloat16"):
        return "NONE", stored, config.dtype
    if stored.startswith("fp8") and not stored.endswith("per_token_head"):
        is_query_quantized = current_target().kind == "cuda"
        return "FP8_PER_TENSOR", "float8_e4m3fn", "float8_e4m3fn" if is_query_quantized else config.dtype
    raise Unresolved(
        f"attention over a KV cache of {stored} is not declared",
        "auto, float16, bfloat16 and fp8 are; the first batches compile",
    )


def _capability() -> tuple[int, int]:
    from vllm.platforms import current_platform

    capability = current_platform.get_device_capability()
    return (0, 0) if capability is None else (capability.major, capability.minor)


def _table_width(n_pages: int, block_size: int) -> int:
    """Entries in a row of the block table: vLLM's own alignment, where it has one."""
    aligned = getattr(real.module("vllm.v1.worker.block_table"), "get_block_table_width", None)
    return int(aligned(n_pages, block_size)) if aligned else n_pages


def _split(group: AttentionGroup, config: WarmupConfig, ops: Any) -> Split:
    """As `TritonAttentionMetadataBuilder` decides it."""
    backend = real.module(_BACKEND)
    n_segments, n_kv_heads = backend.NUM_PAR_SOFTMAX_SEGMENTS, group.n_kv_heads
    threshold = backend.MIN_LAUNCH_GRID_SIZE_2D // n_kv_heads
    if config.cudagraph_capture_sizes:
        threshold = min(config.cudagraph_capture_sizes, key=lambda size: abs(size - threshold))
    longest = getattr(ops, "MAX_3D_QUERY_LEN", 1)  # before it had a name, one token
    query_len = min(1 + config.num_speculative_tokens, longest)
    n_seqs = min(threshold, config.max_num_seqs)
    n_rows = n_seqs * query_len
    n_wide_seqs = (_n_processors() - 1) // (n_segments * n_kv_heads) if _capability() == (12, 0) else 0
    if n_wide_seqs <= 0:
        return Split(threshold, longest, n_segments, n_rows, n_segments, 0, ops.is_batch_invariant)
    n_rows = max(min(n_wide_seqs, n_seqs) * query_len, -(-n_rows // (_WIDE_SEGMENTS // n_segments)))
    return Split(threshold, longest, _WIDE_SEGMENTS, n_rows, n_segments, n_wide_seqs, ops.is_batch_invariant)


def _n_processors() -> int:
    from vllm.platforms import current_platform

    try:
        return int(current_platform.num_compute_units())
    except Exception as exc:
        raise Unresolved(
            "the number of multiprocessors decides how this GPU splits attention, and is not known here",
            "list these keys on the device",
        ) from exc
