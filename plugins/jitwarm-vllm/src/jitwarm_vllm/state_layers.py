"""The gated delta net layers (GDN) of a hybrid model, as a decode step meets them: of the live engine, or of a `config.json`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jitwarm import NeedsModel, Unresolved, WarmupConfig, dtype_name
from jitwarm_vllm import models, real
from jitwarm_vllm.state_cache import UTILS, Conv, channels_first, distinct_layers, n_staged, page_bytes, refuse_drafts

# What a layer of this kind has, whatever its class is called.
_MARKS = ("gqa_interleaved_layout", "in_proj_qkvz", "num_k_heads", "A_log", "dt_bias", "conv1d", "kv_cache")
_STATE_DIM = 4  # pages, heads, elements of a value, elements of a key
# Families of models: whether queries, keys, values and gates come interleaved out of their projection.
_INTERLEAVED = {"qwen3_next": True, "qwen3_5": False}


@dataclass(frozen=True)
class GdnLayer:
    """What one layer on this rank contributes to every launch. Strides in elements.

    Attributes:
        conv: Of queries, keys and values together.
        state_stride: Of the recurrent state, from a page to the next.
        lone_gate_stride: Of the gates in a step of one token, where a view of both gates passes for contiguous.
        is_lone_gate_aligned: Whether the second gate then begins at a multiple of 16 bytes.
        is_packed: Whether a decode step takes queries, keys and values as they come out of the convolution.
    """

    conv: Conv
    dtype: str
    state_dtype: str
    state_stride: int
    n_k_heads: int
    n_v_heads: int
    k_size: int
    v_size: int
    a_log_dtype: str
    dt_bias_dtype: str
    lone_gate_stride: int
    is_lone_gate_aligned: bool
    is_packed: bool

    def gate_stride(self, num_decodes: int) -> int:
        """Of both gates, from a token to the next."""
        return self.lone_gate_stride if num_decodes == 1 else self.n_v_heads

    def is_gate_aligned(self, num_decodes: int) -> bool:
        """Of the second gate."""
        return self.is_lone_gate_aligned if num_decodes == 1 else True


def gdn_layers(config: WarmupConfig) -> list[GdnLayer]:
    """The distinct ones; see `distinct_layers`."""
    return distinct_layers(config, _MARKS, _read, _offline)


def _read(layer: Any, stride: int, compilation: Any) -> GdnLayer:
    conv_state, state = layer.kv_cache
    if state.dim() != _STATE_DIM:
        raise NeedsModel("needs the layers' cache", "it is warmed when the cache is allocated")
    conv_state = channels_first(conv_state)
    n_v_heads, v_size, k_size = state.shape[-3:]
    n_k_heads = layer.num_k_heads // layer.tp_size
    conv_dim, _, width = layer.conv1d.weight.shape
    bias, dtype = layer.conv1d.bias, dtype_name(layer.conv1d.weight.dtype)
    is_interleaved = bool(layer.gqa_interleaved_layout)
    if not compilation.mode and layer.tp_size > 1 and getattr(layer, "disable_tp_for_ba_proj", False):
        raise Unresolved(
            "gates that every rank projects whole are not declared in eager mode", "the first decode steps compile"
        )
    return GdnLayer(
        conv=Conv(
            dtype=dtype_name(conv_state.dtype),
            weight_dtype=dtype,
            bias_dtype="" if bias is None else dtype_name(bias.dtype),
            dim=conv_dim,
            width=width,
            state_strides=tuple(conv_state.stride()),
            x_stride=_qkv_stride(conv_dim, n_v_heads * v_size, is_interleaved),
            x_offset=0,
            has_silu=layer.activation in ("silu", "swish"),
            table_stride=stride,
            n_staged=n_staged(compilation),
            has_mixed_steps=False,
        ),
        dtype=dtype,
        state_dtype=dtype_name(state.dtype),
        state_stride=state.stride(0),
        n_k_heads=n_k_heads,
        n_v_heads=n_v_heads,
        k_size=k_size,
        v_size=v_size,
        a_log_dtype=dtype_name(layer.A_log.dtype),
        dt_bias_dtype=dtype_name(layer.dt_bias.dtype),
        is_packed=bool(getattr(layer, "enable_packed_recurrent_decode", False)),
        **_gates(dtype, n_k_heads, n_v_heads, is_interleaved, is_compiled=bool(compilation.mode)),
    )


def _qkv_stride(conv_dim: int, n_v: int, is_interleaved: bool) -> int:
    """Interleaved projections are put together anew; others stay views."""
    return conv_dim if is_interleaved else conv_dim + n_v


def _gates(dtype: str, n_k_heads: int, n_v_heads: int, is_interleaved: bool, *, is_compiled: bool) -> dict[str, Any]:
    """How a lone token's gates lie.

    Both come out of one projection: `contiguous()` copies them, but for a single token in eager mode, whose view has no second
    row that could lie apart.
    """
    is_view = not is_compiled and (not is_interleaved or n_k_heads == 1)
    gate_bytes = n_v_heads * (4 if dtype == "float32" else 2)
    return {
        "lone_gate_stride": 2 * n_v_heads if is_view and not is_interleaved else n_v_heads,
        "is_lone_gate_aligned": not is_view or gate_bytes % 16 == 0,
    }


def _offline(config: WarmupConfig) -> Iterator[GdnLayer]:
    chosen = models.settings(config)
    if not chosen.model:
        return
    document = models.load(chosen.model)
    text = {**document, **(document.get("text_config") or {})}
    family = next((name for name in _INTERLEAVED if str(text.get("model_type")).startswith(name)), None)
    if family is not None and "linear_num_value_heads" in text:
        refuse_drafts(config)
        yield _of_document(config, text, is_interleaved=_INTERLEAVED[family])


def _of_document(config: WarmupConfig, text: Mapping[str, Any], *, is_interleaved: bool) -> GdnLayer:
    """Shapes and dtypes are vLLM's `MambaStateShapeCalculator` and `MambaStateDtypeCalculator`; no layer is made."""
    import torch
    from vllm import envs

    utils, whole = real.module(UTILS), models.configuration(config)
    k_heads, v_heads = text["linear_num_key_heads"], text["linear_num_value_heads"]
    sizes = (text["linear_key_head_dim"], text["linear_value_head_dim"], text["linear_conv_kernel_dim"])
    shapes = utils.MambaStateShapeCalculator.gated_delta_net_state_shape(whole.tp_size, k_heads, v_heads, *sizes)
    dtypes = utils.MambaStateDtypeCalculator.gated_delta_net_state_dtype(
        getattr(torch, whole.dtype), "auto", str(text.get("mamba_ssm_dtype") or "auto")
    )
    page = page_bytes(config, whole, shapes, dtypes)
    conv_shape, (n_v_heads, v_size, k_size) = shapes
    is_dim_first = utils.is_conv_state_dim_first()
    conv_dim = conv_shape[0 if is_dim_first else 1]
    n_k_heads, has_graphs = k_heads // whole.tp_size, bool(config.cudagraph_capture_sizes)
    return GdnLayer(
        conv=Conv(
            dtype=dtype_name(dtypes[0]),
            weight_dtype=whole.dtype,
            bias_dtype="",
            dim=conv_dim,
            width=sizes[2],
            state_strides=(page // dtypes[0].itemsize, *((conv_shape[1], 1) if is_dim_first else (1, conv_dim))),
            x_stride=_qkv_stride(conv_dim, n_v_heads * v_size, is_interleaved),
            x_offset=0,
            has_silu=text.get("hidden_act", "silu") in ("silu", "swish"),
            table_stride=1,  # a sequence has one page of state
            n_staged=max(config.cudagraph_capture_sizes, default=0),
            has_mixed_steps=False,
        ),
        dtype=whole.dtype,
        state_dtype=dtype_name(dtypes[1]),
        state_stride=page // dtypes[1].itemsize,
        n_k_heads=n_k_heads,
        n_v_heads=n_v_heads,
        k_size=k_size,
        v_size=v_size,
        a_log_dtype="float32",
        dt_bias_dtype=whole.dtype,
        is_packed=bool(envs.VLLM_ENABLE_FLA_PACKED_RECURRENT_DECODE),
        **_gates(whole.dtype, n_k_heads, n_v_heads, is_interleaved, is_compiled=has_graphs),
    )
