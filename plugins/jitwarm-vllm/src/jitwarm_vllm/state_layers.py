"""The gated delta net layers (GDN) of a hybrid model, and how their state cache lies in memory.

vLLM's state kernels take strides of that cache as constants. The cache manager decides them with its page, so in an engine they
are read from the live layers. Offline they follow from the model's `config.json` and the page that vLLM makes of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from jitwarm import NeedsModel, Unresolved, WarmupConfig, dtype_name
from jitwarm_vllm import models, real

_UTILS = "vllm.model_executor.layers.mamba.mamba_utils"
# What a layer of this kind has, whatever its class is called.
_MARKS = ("gqa_interleaved_layout", "in_proj_qkvz", "num_k_heads", "A_log", "dt_bias", "conv1d", "kv_cache")
_STATE_DIM = 4  # pages, heads, elements of a value, elements of a key
# Families of models: whether queries, keys, values and gates come interleaved out of their projection.
_INTERLEAVED = {"qwen3_next": True, "qwen3_5": False}


@dataclass(frozen=True)
class GdnLayer:
    """What one layer on this rank contributes to every launch. Strides in elements.

    Attributes:
        conv_dim: Channels of the convolution: queries, keys and values together.
        conv_strides: Of the convolution's state: from a page to the next, from a channel, from a token.
        state_stride: Of the recurrent state, from a page to the next.
        qkv_stride: From one token's queries, keys and values to the next one's.
        lone_gate_stride: Of the gates in a step of one token, where a view of both gates passes for contiguous.
        is_lone_gate_aligned: Whether the second gate then begins at a multiple of 16 bytes.
        table_stride: From one sequence's row in the block table to the next one's.
        n_staged: Sequences up to which vLLM copies the first column of that table into a buffer of its own; 0 for never.
        is_packed: Whether a decode step takes queries, keys and values as they come out of the convolution.
    """

    dtype: str
    has_silu: bool
    weight_dtype: str
    bias_dtype: str
    conv_dim: int
    conv_width: int
    conv_dtype: str
    conv_strides: tuple[int, int, int]
    state_dtype: str
    state_stride: int
    n_k_heads: int
    n_v_heads: int
    k_size: int
    v_size: int
    a_log_dtype: str
    dt_bias_dtype: str
    qkv_stride: int
    lone_gate_stride: int
    is_lone_gate_aligned: bool
    table_stride: int
    n_staged: int
    is_packed: bool

    def index_stride(self, num_decodes: int) -> int:
        """Of the pages' numbers, in a step of so many sequences that decode one token each."""
        return 1 if num_decodes <= self.n_staged else self.table_stride

    def gate_stride(self, num_decodes: int) -> int:
        """Of both gates, from a token to the next."""
        return self.lone_gate_stride if num_decodes == 1 else self.n_v_heads

    def is_gate_aligned(self, num_decodes: int) -> bool:
        """Of the second gate."""
        return self.is_lone_gate_aligned if num_decodes == 1 else True


def gdn_layers(config: WarmupConfig) -> list[GdnLayer]:
    """The distinct ones: of the live engine, else of the `model` in the settings; none where the model has none.

    Raises:
        ModelConfigError: The settings or the model's `config.json` are wrong.
        NeedsModel: The layers are not known yet.
        Unresolved: The model has such layers, and what they launch is not declared, or not known offline.
    """
    _ = config.attention  # raises while the layers are not known
    runner = _runner(config)
    layers = _live(runner, config) if runner is not None else _offline(config)
    return list(dict.fromkeys(layers))


def _runner(config: WarmupConfig) -> Any | None:
    try:
        return config.require_runner()
    except NeedsModel:
        return None


def _live(runner: Any, config: WarmupConfig) -> Iterator[GdnLayer]:
    compilation = runner.vllm_config.compilation_config
    for name, layer in (compilation.static_forward_context or {}).items():
        if all(hasattr(layer, mark) for mark in _MARKS):
            _refuse_drafts(config)
            yield _read(layer, _table_stride(runner, name), compilation)


def _refuse_drafts(config: WarmupConfig) -> None:
    if config.num_speculative_tokens:
        raise Unresolved(
            "state kernels of speculative decoding are not declared", "the first steps with drafts compile them"
        )


def _read(layer: Any, table_stride: int, compilation: Any) -> GdnLayer:
    conv_state, state = layer.kv_cache
    if state.dim() != _STATE_DIM:
        raise NeedsModel("needs the layers' cache", "it is warmed when the cache is allocated")
    if not real.module(_UTILS).is_conv_state_dim_first():
        conv_state = conv_state.transpose(-1, -2)
    n_v_heads, v_size, k_size = state.shape[-3:]
    n_k_heads = layer.num_k_heads // layer.tp_size
    conv_dim, _, width = layer.conv1d.weight.shape
    bias = layer.conv1d.bias
    is_interleaved = bool(layer.gqa_interleaved_layout)
    if not compilation.mode and layer.tp_size > 1 and getattr(layer, "disable_tp_for_ba_proj", False):
        raise Unresolved(
            "gates that every rank projects whole are not declared in eager mode", "the first decode steps compile"
        )
    mode = compilation.cudagraph_mode
    has_graphs = mode is not None and mode.has_full_cudagraphs()
    return GdnLayer(
        dtype=dtype_name(layer.conv1d.weight.dtype),
        has_silu=layer.activation in ("silu", "swish"),
        weight_dtype=dtype_name(layer.conv1d.weight.dtype),
        bias_dtype="" if bias is None else dtype_name(bias.dtype),
        conv_dim=conv_dim,
        conv_width=width,
        conv_dtype=dtype_name(conv_state.dtype),
        conv_strides=tuple(conv_state.stride()),
        state_dtype=dtype_name(state.dtype),
        state_stride=state.stride(0),
        n_k_heads=n_k_heads,
        n_v_heads=n_v_heads,
        k_size=k_size,
        v_size=v_size,
        a_log_dtype=dtype_name(layer.A_log.dtype),
        dt_bias_dtype=dtype_name(layer.dt_bias.dtype),
        table_stride=table_stride,
        n_staged=(compilation.max_cudagraph_capture_size or 0) if has_graphs else 0,
        is_packed=bool(getattr(layer, "enable_packed_recurrent_decode", False)),
        **_strides(
            dtype_name(layer.conv1d.weight.dtype),
            conv_dim,
            n_k_heads,
            n_v_heads,
            v_size,
            is_interleaved,
            is_compiled=bool(compilation.mode),
        ),
    )


def _strides(
    dtype: str, conv_dim: int, n_k_heads: int, n_v_heads: int, v_size: int, is_interleaved: bool, *, is_compiled: bool
) -> dict[str, Any]:
    """Of what `forward_cuda` hands to the core.

    Interleaved projections are put together anew; others stay views. Both gates come out of one projection: `contiguous()`
    copies them, but for a single token in eager mode, whose view has no second row that could lie apart.
    """
    is_view = not is_compiled and (not is_interleaved or n_k_heads == 1)
    gate_bytes = n_v_heads * (4 if dtype == "float32" else 2)
    return {
        "qkv_stride": conv_dim if is_interleaved else conv_dim + n_v_heads * v_size,
        "lone_gate_stride": 2 * n_v_heads if is_view and not is_interleaved else n_v_heads,
        "is_lone_gate_aligned": not is_view or gate_bytes % 16 == 0,
    }


def _table_stride(runner: Any, name: str) -> int:
    """Of the block table that the metadata builder gets: the group's own, or the pages gathered from it."""
    cache = runner.vllm_config.cache_config
    if getattr(cache, "mamba_cache_mode", "none") != "none":
        return 1
    groups = runner.kv_cache_config.kv_cache_groups
    index = next(i for i, group in enumerate(groups) if name in group.layer_names)
    tables = getattr(runner, "block_tables", None)  # runner V2
    if tables is not None:
        return int(tables.input_block_tables[index].stride(0))
    return int(runner.input_batch.block_table[index].block_table.gpu.stride(0))


def _offline(config: WarmupConfig) -> Iterator[GdnLayer]:
    chosen = models.settings(config)
    if not chosen.model:
        return
    document = models.load(chosen.model)
    text = {**document, **(document.get("text_config") or {})}
    family = next((name for name in _INTERLEAVED if str(text.get("model_type")).startswith(name)), None)
    if family is not None and "linear_num_value_heads" in text:
        _refuse_drafts(config)
        yield _of_document(config, text, is_interleaved=_INTERLEAVED[family])


def _of_document(config: WarmupConfig, text: Mapping[str, Any], *, is_interleaved: bool) -> GdnLayer:
    """Shapes and dtypes are vLLM's `MambaStateShapeCalculator` and `MambaStateDtypeCalculator`; no layer is made."""
    import torch
    from vllm import envs

    utils, whole = real.module(_UTILS), models.configuration(config)
    dtype = getattr(torch, whole.dtype)
    k_heads, v_heads = text["linear_num_key_heads"], text["linear_num_value_heads"]
    sizes = (text["linear_key_head_dim"], text["linear_value_head_dim"], text["linear_conv_kernel_dim"])
    shapes = utils.MambaStateShapeCalculator.gated_delta_net_state_shape(whole.tp_size, k_heads, v_heads, *sizes)
    dtypes = utils.MambaStateDtypeCalculator.gated_delta_net_state_dtype(
        dtype, "auto", str(text.get("mamba_ssm_dtype") or "auto")
    )
    page = _page_bytes(config, whole, shapes, dtypes)
    conv_shape, (n_v_heads, v_size, k_size) = shapes
    is_dim_first = utils.is_conv_state_dim_first()
    conv_dim = conv_shape[0 if is_dim_first else 1]
    n_k_heads, sizes_of = k_heads // whole.tp_size, [torch.empty((), dtype=d).element_size() for d in dtypes]
    has_graphs = bool(config.cudagraph_capture_sizes)
    inner = (conv_shape[1], 1) if is_dim_first else (1, conv_dim)
    return GdnLayer(
        dtype=whole.dtype,
        has_silu=text.get("hidden_act", "silu") in ("silu", "swish"),
        weight_dtype=whole.dtype,
        bias_dtype="",
        conv_dim=conv_dim,
        conv_width=sizes[2],
        conv_dtype=dtype_name(dtypes[0]),
        conv_strides=(page // sizes_of[0], *inner),
        state_dtype=dtype_name(dtypes[1]),
        state_stride=page // sizes_of[1],
        n_k_heads=n_k_heads,
        n_v_heads=n_v_heads,
        k_size=k_size,
        v_size=v_size,
        a_log_dtype="float32",
        dt_bias_dtype=whole.dtype,
        table_stride=1,  # a sequence has one page of state
        n_staged=max(config.cudagraph_capture_sizes) if has_graphs else 0,
        is_packed=bool(envs.VLLM_ENABLE_FLA_PACKED_RECURRENT_DECODE),
        **_strides(whole.dtype, conv_dim, n_k_heads, n_v_heads, v_size, is_interleaved, is_compiled=has_graphs),
    )


def _page_bytes(config: WarmupConfig, whole: WarmupConfig, shapes: Any, dtypes: Any) -> int:
    """One page of every cache, as vLLM unifies them: attention's block, and a state that is padded to it."""
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
    need = sum(
        prod(shape) * torch.empty((), dtype=dtype).element_size() for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    if need > page:
        raise Unresolved(
            f"a page of {block_size} tokens has {page} bytes, and a layer's state {need}",
            'block_size is the one in vLLM\'s log: "Setting attention block size to ... tokens"',
        )
    return page
