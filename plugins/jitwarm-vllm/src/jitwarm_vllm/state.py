"""State kernels of hybrid models: what layers launch that keep a state for each sequence.

Here is a decode step of gated delta nets (GDN); `convolution` and `scan` have what other kinds of layers share, or have alone.
"""

from dataclasses import dataclass
from typing import Any

import triton

from jitwarm import JitKernel, TensorSpec, WarmupConfig, current_target, trace_dispatch
from jitwarm_vllm.convolution import CausalConv1dForward, CausalConv1dUpdate
from jitwarm_vllm.declaring import VllmKernel, declared
from jitwarm_vllm.platform import answering_for
from jitwarm_vllm.scan import SelectiveScanUpdate
from jitwarm_vllm.state_cache import steps
from jitwarm_vllm.state_layers import GdnLayer, gdn_layers

_N_PROGRAMS = 65535  # CUDA's bound of a grid's second and third extent


class PackedDecode(VllmKernel):
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

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether the model has GDN layers."""
        return bool(gdn_layers(config))

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
            stride_mixed_qkv_tok=layer.conv.x_stride,
            stride_a_tok=layer.gate_stride(num_decodes),
            is_a_aligned=layer.is_gate_aligned(num_decodes),
            stride_init_state_token=layer.state_stride,
            stride_indices_seq=layer.conv.index_stride(num_decodes, is_mixed=False),
            h=layer.n_k_heads,
            hv=layer.n_v_heads,
            k=layer.k_size,
            v=layer.v_size,
            bv=bv,
            split_batch_head_grid=n_programs > _N_PROGRAMS,
        )

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """For each distinct layer, unless VLLM_ENABLE_FLA_PACKED_RECURRENT_DECODE is off: every number of sequences."""
        keys: dict[str, Any] = {}
        for layer in [layer for layer in gdn_layers(config) if layer.is_packed]:
            for _, counts in steps(config, has_mixed=False):
                traced = trace_dispatch(
                    self.dispatch, layer=layer, num_decodes=counts, has_small_tiles=self._has_small_tiles()
                )
                keys |= {repr(key): key for key in traced}
        return list(keys.values())

    def _has_small_tiles(self) -> bool:
        """Whether tiles are those of Blackwell: the host function that asks the platform does so for them."""
        with answering_for(current_target()):
            platform = getattr(self.module, "current_platform", None)
            return (
                platform is not None and platform.is_cuda() and platform.is_device_capability_family(100, device_id=0)
            )

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
    """All declarations, or why not."""
    declarations = (CausalConv1dForward, CausalConv1dUpdate, PackedDecode, SelectiveScanUpdate)
    return [declared(declaration) for declaration in declarations]
