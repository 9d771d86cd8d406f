"""The convolution of a layer that keeps a state: over prompts, and one more token for each sequence that decodes.

The number of sequences and of tokens decides little: its class, and where prompts begin in a step, behind its decodes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import triton

from jitwarm import IntClass, IntRange, TensorSpec, WarmupConfig, current_target, trace_dispatch
from jitwarm_vllm.declaring import VllmKernel, entries
from jitwarm_vllm.mamba_layers import mamba2_layers
from jitwarm_vllm.platform import answering_for
from jitwarm_vllm.state_cache import Conv, steps
from jitwarm_vllm.state_layers import gdn_layers

_MODULE = "vllm.model_executor.layers.mamba.ops.causal_conv1d"


def _convs(config: WarmupConfig) -> list[Conv]:
    """Of every kind of layer."""
    return list(dict.fromkeys(layer.conv for layer in [*gdn_layers(config), *mamba2_layers(config)]))


class _Convolution(VllmKernel):
    """What both have in common."""

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether the model has a layer of which it is a part."""
        return bool(_convs(config))

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """For each distinct convolution: every step that the server may take."""
        from vllm.platforms import current_platform

        with answering_for(current_target()):
            has_pdl = bool(current_platform.is_arch_support_pdl())
        keys: dict[str, Any] = {}
        for conv in _convs(config):
            for given in self.inputs(config, conv):
                traced = trace_dispatch(self.dispatch, conv=conv, has_pdl=has_pdl, **given)
                keys |= {repr(key): key for key in traced}
        return list(keys.values())

    def inputs(self, config: WarmupConfig, conv: Conv) -> Iterator[dict[str, Any]]:
        """What else `dispatch` is given."""
        raise NotImplementedError


class CausalConv1dUpdate(_Convolution):
    """One more token through the convolution of each sequence, whose last tokens are its state."""

    name = "causal_conv1d_update"
    place = (_MODULE, "_causal_conv1d_update_kernel")
    fixed = {  # noqa: RUF012 - one token for each sequence, in place, and without pages of earlier tokens
        "seqlen": 1, "stride_x_dim": 1, "stride_x_token": 1, "stride_o_dim": 1, "stride_o_token": 1, "stride_w_width": 1,
        "IS_VARLEN": False, "IS_SPEC_DECODING": False, "IS_APC_ENABLED": False, "HAS_NULL_BLOCK": True, "BLOCK_N": 256,
    }  # fmt: skip
    derived = {  # noqa: RUF012 - never mutated
        "state_len": ("kernel_width",), "NP2_STATELEN": ("kernel_width",), "stride_w_dim": ("kernel_width",),
        "stride_o_seq": ("stride_x_seq",), "HAS_BIAS": ("bias_dtype",), "null_block_id": (), "num_cache_lines": (),
    }  # fmt: skip

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside. `bias_dtype` is empty for no bias."""

        dtype: str
        weight_dtype: str
        bias_dtype: str
        batch: IntClass
        is_x_aligned: bool
        dim: int
        kernel_width: int
        stride_x_seq: int
        stride_conv_state_seq: int
        stride_conv_state_dim: int
        stride_conv_state_tok: int
        stride_state_indices: int
        silu_activation: bool
        launch_pdl: bool

    def dispatch(self, *, conv: Conv, num_decodes: int, is_mixed: bool, has_pdl: bool) -> CompileKey:
        """What `causal_conv1d_update` launches."""
        page, channel, token = conv.state_strides
        return self.CompileKey(
            dtype=conv.dtype,
            weight_dtype=conv.weight_dtype,
            bias_dtype=conv.bias_dtype,
            batch=IntClass.of(num_decodes),
            is_x_aligned=conv.is_row_aligned(0),
            dim=conv.dim,
            kernel_width=conv.width,
            stride_x_seq=conv.x_stride,
            stride_conv_state_seq=page,
            stride_conv_state_dim=channel,
            stride_conv_state_tok=token,
            stride_state_indices=conv.index_stride(num_decodes, is_mixed),
            silu_activation=conv.has_silu,
            launch_pdl=has_pdl,
        )

    def inputs(self, config: WarmupConfig, conv: Conv) -> Iterator[dict[str, Any]]:
        """Every number of sequences that decode, alone and beside prompts."""
        for is_mixed, counts in steps(config, has_mixed=conv.has_mixed_steps):
            yield {"num_decodes": counts, "is_mixed": is_mixed}

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes. The cache always has more than one page."""
        return entries(
            self,
            {
                **self.named(key),
                "x_ptr": TensorSpec(key.dtype, ("tokens", key.dim), aligned=key.is_x_aligned),
                "w_ptr": TensorSpec(key.weight_dtype, (key.dim, key.kernel_width)),
                "bias_ptr": TensorSpec(key.bias_dtype, (key.dim,)) if key.bias_dtype else None,
                "conv_state_ptr": TensorSpec(key.dtype, ("pages", key.dim, key.kernel_width - 1)),
                "conv_state_indices_ptr": TensorSpec("int32", ("n_seqs",)),
                "num_accepted_tokens_ptr": None,
                "query_start_loc_ptr": None,
                "block_idx_last_scheduled_token": None,
                "initial_state_idx": None,
                "o_ptr": TensorSpec(key.dtype, ("tokens", key.dim), aligned=key.is_x_aligned),
                "state_len": key.kernel_width - 1,
                "num_cache_lines": IntClass.OTHER,
                "stride_w_dim": key.kernel_width,
                "stride_o_seq": key.stride_x_seq,
                "null_block_id": self.module.NULL_BLOCK_ID,
                "HAS_BIAS": bool(key.bias_dtype),
                "NP2_STATELEN": triton.next_power_of_2(key.kernel_width - 1),
            },
        )


class CausalConv1dForward(_Convolution):
    """The prompts of a step through the convolution, from the state that each has left."""

    name = "causal_conv1d_fwd"
    place = (_MODULE, "_causal_conv1d_fwd_kernel")
    options = ("num_stages",)
    fixed = {  # noqa: RUF012 - channels last, and without pages of earlier tokens
        "stride_x_dim": 1, "stride_o_dim": 1, "stride_w_width": 1, "stride_block_m": 0, "IS_APC_ENABLED": False,
        "HAS_NULL_BLOCK": True, "BLOCK_M": 8, "BLOCK_N": 256, "num_stages": 2,
    }  # fmt: skip
    derived = {  # noqa: RUF012 - never mutated
        "NP2_STATELEN": ("kernel_width",), "stride_w_dim": ("kernel_width",), "HAS_BIAS": ("bias_dtype",), "null_block_id": (),
        "pad_slot_id": (), "num_cache_lines": (),
    }  # fmt: skip

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside. `bias_dtype` is empty for no bias."""

        dtype: str
        weight_dtype: str
        bias_dtype: str
        is_x_aligned: bool
        is_index_aligned: bool
        dim: int
        kernel_width: int
        stride_x_token: int
        stride_o_token: IntClass
        stride_istate_seq: int
        stride_istate_dim: int
        stride_istate_token: int
        stride_cache_indices: int
        silu_activation: bool
        launch_pdl: bool

    def dispatch(self, *, conv: Conv, num_tokens: int, num_decodes: int, has_pdl: bool) -> CompileKey:
        """What `causal_conv1d_fn` launches for so many tokens of prompts, behind so many sequences that decode."""
        page, channel, token = conv.state_strides
        # A lone token keeps its stride; `empty_like` packs several.
        stride_o_token = conv.x_stride if num_tokens == 1 else conv.dim
        return self.CompileKey(
            dtype=conv.dtype,
            weight_dtype=conv.weight_dtype,
            bias_dtype=conv.bias_dtype,
            is_x_aligned=conv.is_row_aligned(num_decodes),
            is_index_aligned=num_decodes * conv.table_stride % 4 == 0,
            dim=conv.dim,
            kernel_width=conv.width,
            stride_x_token=conv.x_stride,
            stride_o_token=IntClass.of(stride_o_token),
            stride_istate_seq=page,
            stride_istate_dim=channel,
            stride_istate_token=token,
            stride_cache_indices=conv.table_stride,
            silu_activation=conv.has_silu,
            launch_pdl=has_pdl,
        )

    def inputs(self, config: WarmupConfig, conv: Conv) -> Iterator[dict[str, Any]]:
        """One token of a prompt, and more, each behind as many decodes as fit."""
        n_tokens = config.max_num_batched_tokens
        for counts, least in ((IntRange(1, 2), 1), (IntRange(2, n_tokens + 1), 2)):
            n_before = min(config.max_num_seqs - 1, n_tokens - least) if conv.has_mixed_steps else 0
            if least <= n_tokens:
                yield {"num_tokens": counts, "num_decodes": IntRange(0, n_before + 1)}

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes. The cache always has more than one page."""
        return entries(
            self,
            {
                **self.named(key),
                "x_ptr": TensorSpec(key.dtype, (key.dim, "tokens"), aligned=key.is_x_aligned),
                "w_ptr": TensorSpec(key.weight_dtype, (key.dim, key.kernel_width)),
                "bias_ptr": TensorSpec(key.bias_dtype, (key.dim,)) if key.bias_dtype else None,
                "initial_states_ptr": TensorSpec(key.dtype, ("pages", key.dim, key.kernel_width - 1)),
                "cache_indices_ptr": TensorSpec("int32", ("n_seqs",), aligned=key.is_index_aligned),
                "has_initial_states_ptr": TensorSpec("bool", ("n_seqs",)),
                "query_start_loc_ptr": TensorSpec("int32", ("n_seqs",)),
                "batch_ptr": TensorSpec("int32", ("n_programs",)),
                "token_chunk_offset_ptr": TensorSpec("int32", ("n_programs",)),
                "block_idx_first_scheduled_token": None,
                "block_idx_last_scheduled_token": None,
                "initial_state_idx": None,
                "num_computed_tokens": None,
                "o_ptr": TensorSpec(key.dtype, (key.dim, "tokens")),
                "num_cache_lines": IntClass.OTHER,
                "stride_w_dim": key.kernel_width,
                "pad_slot_id": self.module.PAD_SLOT_ID,
                "null_block_id": self.module.NULL_BLOCK_ID,
                "HAS_BIAS": bool(key.bias_dtype),
                "NP2_STATELEN": triton.next_power_of_2(key.kernel_width - 1),
            },
        )
