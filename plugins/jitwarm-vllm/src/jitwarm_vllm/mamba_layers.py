"""The Mamba-2 layers of a hybrid model, as a decode step meets them: of the live engine, or of a `config.json`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jitwarm import NeedsModel, Unresolved, WarmupConfig, dtype_name
from jitwarm_vllm import models, real
from jitwarm_vllm.state_cache import UTILS, Conv, channels_first, distinct_layers, n_staged, page_bytes, refuse_drafts

# What a layer of this kind has, whatever its class is called.
_MARKS = ("tped_conv_size", "tped_dt_size", "ssm_state_size", "conv_weights", "A", "D", "dt_bias", "kv_cache")
_STATE_DIM = 4  # pages, heads, elements of a head, elements of a state
# What families of models call the same thing, and what a configuration that does not say it means.
_NAMES = {
    "state": ("mamba_d_state", "ssm_state_size"),
    "width": ("mamba_d_conv", "conv_kernel"),
    "heads": ("mamba_n_heads", "mamba_num_heads"),
    "head": ("mamba_d_head", "mamba_head_dim"),
    "groups": ("mamba_n_groups", "n_groups"),
}
_STATE_DTYPE = {"nemotron_h": "float32"}  # of the recurrent state, as vLLM sets it where neither model nor user does


@dataclass(frozen=True)
class Mamba2Layer:
    """What one layer on this rank contributes to every launch. Strides in elements.

    Attributes:
        conv: Of inputs, B and C together.
        dtype: Of activations, D and the bias of dt.
        state_stride: Of the recurrent state, from a page to the next.
        is_state_aligned: Whether it begins at a multiple of 16 bytes, behind the convolution's state.
        offsets: Where inputs, B, C and dt begin in a row of the projection.
        philox_rounds: A constant of the kernel, although nothing is rounded at random.
        is_triton: Whether `--mamba-backend` is Triton.
    """

    conv: Conv
    dtype: str
    state_dtype: str
    state_stride: int
    is_state_aligned: bool
    n_heads: int
    head_size: int
    state_size: int
    n_groups: int
    offsets: tuple[int, int, int, int]
    philox_rounds: int
    is_triton: bool

    def is_aligned(self, which: int) -> bool:
        """Whether a part of a row begins at a multiple of 16 bytes, in the first row."""
        return self.offsets[which] * (4 if self.dtype == "float32" else 2) % 16 == 0


def mamba2_layers(config: WarmupConfig) -> list[Mamba2Layer]:
    """The distinct ones; see `distinct_layers`."""
    return distinct_layers(config, _MARKS, _read, _offline)


def _read(layer: Any, stride: int, compilation: Any) -> Mamba2Layer:
    rounding = getattr(layer, "mamba_config", None)
    if getattr(layer, "use_replayssm", False) or getattr(rounding, "enable_stochastic_rounding", False):
        raise Unresolved(
            "ReplaySSM, and states that are rounded at random, are not declared", "the first steps compile"
        )
    conv_state, state = layer.kv_cache[:2]
    if state.dim() != _STATE_DIM:
        raise NeedsModel("needs the layers' cache", "it is warmed when the cache is allocated")
    conv_state, bias = channels_first(conv_state), layer.conv1d.bias
    n_heads, head_size, state_size = state.shape[-3:]
    dim, width = layer.conv_weights.shape
    n_groups = layer.n_groups // layer.tp_size
    dtype = dtype_name(layer.conv_weights.dtype)
    return Mamba2Layer(
        conv=Conv(
            dtype=dtype_name(conv_state.dtype),
            weight_dtype=dtype,
            bias_dtype="" if bias is None else dtype_name(bias.dtype),
            dim=dim,
            width=width,
            state_strides=tuple(conv_state.stride()),
            has_silu=layer.activation in ("silu", "swish"),
            table_stride=stride,
            n_staged=n_staged(compilation),
            has_mixed_steps=True,
            **_row(n_heads * head_size, dim, n_heads),
        ),
        dtype=dtype,
        state_dtype=dtype_name(state.dtype),
        state_stride=state.stride(0),
        is_state_aligned=state.storage_offset() * state.element_size() % 16 == 0,
        n_heads=n_heads,
        head_size=head_size,
        state_size=state_size,
        n_groups=n_groups,
        offsets=_offsets(n_heads * head_size, n_groups * state_size),
        philox_rounds=int(getattr(rounding, "stochastic_rounding_philox_rounds", 0)),
        is_triton=getattr(getattr(rounding, "backend", None), "name", "TRITON") == "TRITON",
    )


def _row(n_inner: int, dim: int, n_heads: int) -> dict[str, int]:
    """A row of the projection: gates, what goes through the convolution, dt."""
    return {"x_stride": n_inner + dim + n_heads, "x_offset": n_inner}


def _offsets(n_inner: int, n_shared: int) -> tuple[int, int, int, int]:
    return n_inner, 2 * n_inner, 2 * n_inner + n_shared, 2 * (n_inner + n_shared)


def _offline(config: WarmupConfig) -> Iterator[Mamba2Layer]:
    chosen = models.settings(config)
    if not chosen.model:
        return
    document = models.load(chosen.model)
    text = {**document, **(document.get("text_config") or {})}
    sizes = {what: next((text[name] for name in names if name in text), 0) for what, names in _NAMES.items()}
    if all(sizes.values()):
        refuse_drafts(config)
        yield _of_document(config, text, **sizes)


def _of_document(
    config: WarmupConfig, text: Mapping[str, Any], *, state: int, width: int, heads: int, head: int, groups: int
) -> Mamba2Layer:
    """Shapes and dtypes are vLLM's `MambaStateShapeCalculator` and `MambaStateDtypeCalculator`; no layer is made."""
    import torch

    utils, whole = real.module(UTILS), models.configuration(config)
    shapes = utils.MambaStateShapeCalculator.mamba2_state_shape(
        tp_world_size=whole.tp_size, intermediate_size=heads * head, n_groups=groups, num_heads=heads, head_dim=head,
        state_size=state, conv_kernel=width,
    )  # fmt: skip
    of_state = text.get("mamba_ssm_cache_dtype") or _STATE_DTYPE.get(str(text.get("model_type")), "auto")
    dtypes = utils.MambaStateDtypeCalculator.mamba2_state_dtype(getattr(torch, whole.dtype), "auto", of_state)
    page = page_bytes(config, whole, shapes, dtypes)
    conv_shape, (n_heads, head_size, state_size) = shapes
    is_dim_first = utils.is_conv_state_dim_first()
    dim = conv_shape[0 if is_dim_first else 1]
    n_shared = (dim - n_heads * head_size) // 2
    has_bias = text.get("mamba_conv_bias", text.get("use_conv_bias", True))
    return Mamba2Layer(
        conv=Conv(
            dtype=dtype_name(dtypes[0]),
            weight_dtype=whole.dtype,
            bias_dtype=whole.dtype if has_bias else "",
            dim=dim,
            width=width,
            state_strides=(page // dtypes[0].itemsize, *((conv_shape[1], 1) if is_dim_first else (1, dim))),
            has_silu=text.get("mamba_hidden_act", text.get("hidden_act", "silu")) in ("silu", "swish"),
            table_stride=1,  # a sequence has one page of state
            n_staged=max(config.cudagraph_capture_sizes, default=0),
            has_mixed_steps=True,
            **_row(n_heads * head_size, dim, n_heads),
        ),
        dtype=whole.dtype,
        state_dtype=dtype_name(dtypes[1]),
        state_stride=page // dtypes[1].itemsize,
        is_state_aligned=dim * (width - 1) * dtypes[0].itemsize % 16 == 0,
        n_heads=n_heads,
        head_size=head_size,
        state_size=state_size,
        n_groups=n_shared // state_size,
        offsets=_offsets(n_heads * head_size, n_shared),
        philox_rounds=0,
        is_triton=True,
    )
