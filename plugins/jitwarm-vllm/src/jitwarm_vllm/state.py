"""State kernels of hybrid models: what a decode step of a gated delta net layer (GDN) launches.

Both kernels run where every sequence of a step decodes one token; prefills and drafts take others. The number of sequences
decides little: its class in the convolution, the tiles of the recurrence on Blackwell GPUs.
"""

from dataclasses import dataclass
from typing import Any

import triton

from jitwarm import IntClass, IntRange, JitKernel, TensorSpec, Unresolved, WarmupConfig, current_target, trace_dispatch
from jitwarm_vllm.declaring import VllmKernel, declared, entries
from jitwarm_vllm.platform import answering_for
from jitwarm_vllm.state_layers import GdnLayer, gdn_layers

_N_PROGRAMS = 65535  # CUDA's bound of a grid's second and third extent


class StateKernel(VllmKernel):
    """What both have in common."""

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether the model has GDN layers."""
        return bool(gdn_layers(config))

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """For each distinct layer: every number of sequences."""
        keys: dict[str, Any] = {}
        for layer in gdn_layers(config):
            if layer.conv_dtype != layer.dtype:
                raise Unresolved(
                    f"a convolution's state in {layer.conv_dtype} beside a model in {layer.dtype} is not declared",
                    "leave mamba_cache_dtype at auto, or let the first steps compile",
                )
            if not self.is_for_layer(layer):
                continue
            n_most = min(config.max_num_seqs, config.max_num_batched_tokens)
            with answering_for(current_target()):
                facts = self.facts()
            traced = trace_dispatch(self.dispatch, layer=layer, num_decodes=IntRange(1, n_most + 1), **facts)
            keys |= {repr(key): key for key in traced}
        return list(keys.values())

    def is_for_layer(self, layer: GdnLayer) -> bool:
        """Whether a decode step of this layer launches it."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What vLLM's host function asks the platform."""
        raise NotImplementedError


class CausalConv1dUpdate(StateKernel):
    """One more token through the convolution of each sequence, whose last tokens are its state."""

    name = "causal_conv1d_update"
    place = ("vllm.model_executor.layers.mamba.ops.causal_conv1d", "_causal_conv1d_update_kernel")
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
        dim: int
        kernel_width: int
        stride_x_seq: int
        stride_conv_state_seq: int
        stride_conv_state_dim: int
        stride_conv_state_tok: int
        stride_state_indices: int
        silu_activation: bool
        launch_pdl: bool

    def dispatch(self, *, layer: GdnLayer, num_decodes: int, has_pdl: bool) -> CompileKey:
        """What `causal_conv1d_update` launches."""
        page, channel, token = layer.conv_strides
        return self.CompileKey(
            dtype=layer.conv_dtype,
            weight_dtype=layer.weight_dtype,
            bias_dtype=layer.bias_dtype,
            batch=IntClass.of(num_decodes),
            dim=layer.conv_dim,
            kernel_width=layer.conv_width,
            stride_x_seq=layer.qkv_stride,
            stride_conv_state_seq=page,
            stride_conv_state_dim=channel,
            stride_conv_state_tok=token,
            stride_state_indices=layer.index_stride(num_decodes),
            silu_activation=layer.has_silu,
            launch_pdl=has_pdl,
        )

    def is_for_layer(self, layer: GdnLayer) -> bool:
        """Every decode step begins with it."""
        del layer
        return True

    def facts(self) -> dict[str, Any]:
        """Whether launches may overlap (PDL)."""
        from vllm.platforms import current_platform

        return {"has_pdl": bool(current_platform.is_arch_support_pdl())}

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes. The cache always has more than one page."""
        return entries(
            self,
            {
                **self.named(key),
                "x_ptr": TensorSpec(key.dtype, ("tokens", key.dim)),
                "w_ptr": TensorSpec(key.weight_dtype, (key.dim, key.kernel_width)),
                "bias_ptr": TensorSpec(key.bias_dtype, (key.dim,)) if key.bias_dtype else None,
                "conv_state_ptr": TensorSpec(key.dtype, ("pages", key.dim, key.kernel_width - 1)),
                "conv_state_indices_ptr": TensorSpec("int32", ("n_seqs",)),
                "num_accepted_tokens_ptr": None,
                "query_start_loc_ptr": None,
                "block_idx_last_scheduled_token": None,
                "initial_state_idx": None,
                "o_ptr": TensorSpec(key.dtype, ("tokens", key.dim)),
                "state_len": key.kernel_width - 1,
                "num_cache_lines": IntClass.OTHER,
                "stride_w_dim": key.kernel_width,
                "stride_o_seq": key.stride_x_seq,
                "null_block_id": self.module.NULL_BLOCK_ID,
                "HAS_BIAS": bool(key.bias_dtype),
                "NP2_STATELEN": triton.next_power_of_2(key.kernel_width - 1),
            },
        )


class PackedDecode(StateKernel):
    """One step of the recurrence, from what comes out of the convolution."""

    name = "gdn_packed_decode"
    place = (
        "vllm.third_party.flash_linear_attention.ops.fused_recurrent",
        "fused_recurrent_gated_delta_rule_packed_decode_kernel",
    )
    options = ("num_warps", "num_stages")
    fixed = {  # noqa: RUF012 - never mutated
        "SOFTPLUS_THRESHOLD": 20.0, "USE_QK_L2NORM_IN_KERNEL": True, "num_warps": 1, "num_stages": 3,
    }  # fmt: skip
    derived = {  # noqa: RUF012 - the new state replaces the old one
        "stride_b_tok": ("stride_a_tok",), "stride_final_state_token": ("stride_init_state_token",), "BK": ("k",),
    }  # fmt: skip

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside."""

        dtype: str
        a_log_dtype: str
        dt_bias_dtype: str
        state_dtype: str
        stride_mixed_qkv_tok: int
        stride_a_tok: int
        is_a_aligned: bool
        stride_init_state_token: int
        stride_indices_seq: int
        h: int
        hv: int
        k: int
        v: int
        bv: int
        split_batch_head_grid: bool

    def dispatch(self, *, layer: GdnLayer, num_decodes: int, has_small_tiles: bool) -> CompileKey:
        """What `fused_recurrent_gated_delta_rule_packed_decode` launches."""
        n_programs = num_decodes * layer.n_v_heads
        bv = min(triton.next_power_of_2(layer.v_size), 32)
        if has_small_tiles and layer.k_size == 128 and layer.v_size == 128:
            bv = 4 if n_programs <= 64 else 8 if layer.state_dtype == "float32" else bv
        return self.CompileKey(
            dtype=layer.dtype,
            a_log_dtype=layer.a_log_dtype,
            dt_bias_dtype=layer.dt_bias_dtype,
            state_dtype=layer.state_dtype,
            stride_mixed_qkv_tok=layer.qkv_stride,
            stride_a_tok=layer.gate_stride(num_decodes),
            is_a_aligned=layer.is_gate_aligned(num_decodes),
            stride_init_state_token=layer.state_stride,
            stride_indices_seq=layer.index_stride(num_decodes),
            h=layer.n_k_heads,
            hv=layer.n_v_heads,
            k=layer.k_size,
            v=layer.v_size,
            bv=bv,
            split_batch_head_grid=n_programs > _N_PROGRAMS,
        )

    def is_for_layer(self, layer: GdnLayer) -> bool:
        """Unless VLLM_ENABLE_FLA_PACKED_RECURRENT_DECODE is off."""
        return layer.is_packed

    def facts(self) -> dict[str, Any]:
        """Whether tiles are those of Blackwell: the host function that asks the platform does so for them."""
        platform = getattr(self.module, "current_platform", None)
        return {
            "has_small_tiles": platform is not None
            and platform.is_cuda()
            and platform.is_device_capability_family(100, device_id=0)
        }

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes."""
        state = TensorSpec(key.state_dtype, ("pages", key.hv, key.v, key.k))
        return {
            **self.named(key),
            "mixed_qkv": TensorSpec(key.dtype, ("tokens", "channels")),
            "a": TensorSpec(key.dtype, ("tokens", key.hv), aligned=key.is_a_aligned),
            "b": TensorSpec(key.dtype, ("tokens", key.hv)),
            "A_log": TensorSpec(key.a_log_dtype, (key.hv,)),
            "dt_bias": TensorSpec(key.dt_bias_dtype, (key.hv,)),
            "o": TensorSpec(key.dtype, ("tokens", 1, key.hv, key.v)),
            "h0": state,
            "ht": state,
            "ssm_state_indices": TensorSpec("int32", ("n_seqs",)),
            "scale": 0.5,
            "stride_b_tok": key.stride_a_tok,
            "stride_final_state_token": key.stride_init_state_token,
            "BK": triton.next_power_of_2(key.k),
        }


def kernels() -> list[JitKernel]:
    """Both declarations, or why not."""
    return [declared(CausalConv1dUpdate), declared(PackedDecode)]
