"""What the state layers of hybrid models have in common: a convolution, and a cache of which a page is as large as attention's.

vLLM's state kernels take strides of that cache as constants. The cache manager decides them with its page, so in an engine they
are read from the live layers. Offline they follow from the model's `config.json` and the page that vLLM makes of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from jitwarm import IntRange, NeedsModel, Unresolved, WarmupConfig
from jitwarm_vllm import models, real

UTILS = "vllm.model_executor.layers.mamba.mamba_utils"


@dataclass(frozen=True)
class Conv:
    """The convolution of one layer on this rank, whose last tokens are its state. Strides in elements.

    Attributes:
        dim: Channels.
        state_strides: Of the state: from a page to the next, from a channel, from a token.
        x_stride: From one token's channels to the next one's, in what the projection hands over.
        x_offset: Where they begin in a row.
        table_stride: From one sequence's row in the block table to the next one's.
        n_staged: Sequences up to which vLLM copies the first column of that table into a buffer of its own; 0 for never.
        has_mixed_steps: Whether decodes are told apart from the prompts behind them in a step; then nothing is copied.
    """

    dtype: str
    weight_dtype: str
    bias_dtype: str
    dim: int
    width: int
    state_strides: tuple[int, int, int]
    x_stride: int
    x_offset: int
    has_silu: bool
    table_stride: int
    n_staged: int
    has_mixed_steps: bool

    def is_row_aligned(self, row: int) -> bool:
        """Whether a token's channels begin at a multiple of 16 bytes."""
        return (row * self.x_stride + self.x_offset) * (4 if self.dtype == "float32" else 2) % 16 == 0

    def index_stride(self, num_decodes: int, is_mixed: bool) -> int:
        """Of the pages' numbers, for so many sequences that decode one token each."""
        return 1 if not is_mixed and num_decodes <= self.n_staged else self.table_stride


def steps(config: WarmupConfig, *, has_mixed: bool) -> Iterator[tuple[bool, IntRange]]:
    """How many sequences decode a token each: in a step of decodes alone, and beside at least one prefill of a token.

    Yields:
        Whether it is a mixed step, and the counts.
    """
    n_most = min(config.max_num_seqs, config.max_num_batched_tokens)
    yield False, IntRange(1, n_most + 1)
    if has_mixed and n_most > 1:
        yield True, IntRange(1, n_most)


def distinct_layers(
    config: WarmupConfig,
    marks: Sequence[str],
    read: Callable[[Any, int, Any], Any],
    offline: Callable[[WarmupConfig], Iterator[Any]],
) -> list[Any]:
    """The layers of one kind, each once: of the live engine, else of the `model` in the settings; none where it has none.

    Args:
        config: What is warmed.
        marks: Attributes that a live layer of this kind has, whatever its class is called.
        read: A live layer, its block table's stride and the compilation configuration -> what is known of it.
        offline: Reads the `model`.

    Raises:
        ModelConfigError: The settings or the model's `config.json` are wrong.
        NeedsModel: The layers are not known yet.
        Unresolved: The model has such layers, and what they launch is not declared, or not known offline.
    """
    runner = runner_of(config)
    found = offline(config) if runner is None else _live(runner, config, marks, read)
    layers = list(dict.fromkeys(found))
    for layer in layers:
        require_dtype(layer.conv, layer.dtype)
    return layers


def _live(
    runner: Any, config: WarmupConfig, marks: Sequence[str], read: Callable[[Any, int, Any], Any]
) -> Iterator[Any]:
    compilation = runner.vllm_config.compilation_config
    for name, layer in (compilation.static_forward_context or {}).items():
        if all(hasattr(layer, mark) for mark in marks):
            refuse_drafts(config)
            yield read(layer, table_stride(runner, name), compilation)


def runner_of(config: WarmupConfig) -> Any | None:
    """The live engine's model runner; None offline, or where the settings say what an engine's layers will be.

    Raises:
        NeedsModel: There is an engine, its layers are not known yet, and nobody has said what they will be.
    """
    if not config.has_layers and not models.settings(config).model:
        _ = config.attention  # raises
    try:
        return config.require_runner()
    except NeedsModel:
        return None


def refuse_drafts(config: WarmupConfig) -> None:
    """Drafts take kernels of their own.

    Raises:
        Unresolved: The engine drafts tokens.
    """
    if config.num_speculative_tokens:
        raise Unresolved(
            "state kernels of speculative decoding are not declared", "the first steps with drafts compile them"
        )


def require_dtype(conv: Conv, dtype: str) -> None:
    """A convolution's state in another dtype than the model's is converted around the kernel.

    Raises:
        Unresolved: It is.
    """
    if conv.dtype != dtype:
        raise Unresolved(
            f"a convolution's state in {conv.dtype} beside a model in {dtype} is not declared",
            "leave mamba_cache_dtype at auto, or let the first steps compile",
        )


def channels_first(conv_state: Any) -> Any:
    """A live layer's state of the convolution, as kernels take it: pages, channels, tokens."""
    return conv_state if real.module(UTILS).is_conv_state_dim_first() else conv_state.transpose(-1, -2)


def table_stride(runner: Any, name: str) -> int:
    """Of the block table that the metadata builder of a live layer gets: the group's own, or the pages gathered from it."""
    cache = runner.vllm_config.cache_config
    if getattr(cache, "mamba_cache_mode", "none") != "none":
        return 1
    groups = runner.kv_cache_config.kv_cache_groups
    index = next(i for i, group in enumerate(groups) if name in group.layer_names)
    tables = getattr(runner, "block_tables", None)  # runner V2
    if tables is not None:
        return int(tables.input_block_tables[index].stride(0))
    return int(runner.input_batch.block_table[index].block_table.gpu.stride(0))


def n_staged(compilation: Any) -> int:
    """Sequences for which a live engine has captured graphs of whole steps; 0 for none."""
    has_graphs = compilation.cudagraph_mode is not None and compilation.cudagraph_mode.has_full_cudagraphs()
    return int(compilation.max_cudagraph_capture_size or 0) if has_graphs else 0


def page_bytes(config: WarmupConfig, whole: WarmupConfig, shapes: Any, dtypes: Any) -> int:
    """One page of every cache, as vLLM unifies them: attention's block, and a state that is padded to it.

    Args:
        config: With this plugin's settings.
        whole: With the model's attention groups.
        shapes: Of a layer's states.
        dtypes: Of the same.

    Raises:
        Unresolved: The size of a block is not given, or too small for a state.
    """
    import torch

    block_size = models.settings(config).block_size
    if not block_size or not whole.attention:
        raise Unresolved(
            "the size of a page is a constant of the state kernels, and vLLM decides it",
            'set block_size to what its log says: "Setting attention block size to ... tokens"',
        )
    stored = whole.kv_cache_dtype if whole.kv_cache_dtype != "auto" else whole.dtype
    itemsize = 1 if stored.startswith("fp8") else torch.empty((), dtype=getattr(torch, stored)).element_size()
    group = whole.attention[0]
    page = 2 * block_size * group.n_kv_heads * group.head_size * itemsize
    need = sum(prod(shape) * dtype.itemsize for shape, dtype in zip(shapes, dtypes, strict=True))
    if need > page:
        raise Unresolved(
            f"a page of {block_size} tokens has {page} bytes, and a layer's state {need}",
            'block_size is the one in vLLM\'s log: "Setting attention block size to ... tokens"',
        )
    return page
