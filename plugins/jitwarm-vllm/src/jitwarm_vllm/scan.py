"""One step of a Mamba-2 layer's recurrence, for sequences that decode a token each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jitwarm import IntClass, IntRange, TensorSpec, WarmupConfig, current_target, trace_dispatch
from jitwarm_vllm import models
from jitwarm_vllm.declaring import VllmKernel, entries
from jitwarm_vllm.mamba_layers import Mamba2Layer, mamba2_layers
from jitwarm_vllm.platform import answering_for
from jitwarm_vllm.state_cache import steps

_BLACKWELL = 100
_X, _B, _C, _DT = range(4)


class SelectiveScanUpdate(VllmKernel):
    """`_selective_scan_update_kernel`, as Mamba-2 layers launch it: A, D and the biases are one number for each head."""

    name = "selective_scan_update"
    place = ("vllm.model_executor.layers.mamba.ops.mamba_ssm", "_selective_scan_update_kernel")
    options = ("num_warps",)
    fixed = {  # noqa: RUF012 - the last dimension of each tensor is compact, or one number that is repeated
        "stride_x_dim": 1, "stride_dt_head": 1, "stride_dt_dim": 0, "stride_dt_bias_head": 1, "stride_dt_bias_dim": 0,
        "stride_A_head": 1, "stride_A_dim": 0, "stride_A_dstate": 0, "stride_B_dstate": 1, "stride_C_dstate": 1,
        "stride_D_head": 1, "stride_D_dim": 0, "stride_z_batch": 0, "stride_z_head": 0, "stride_z_dim": 0, "stride_out_dim": 1,
        "stride_state_dstate": 1, "stride_state_indices_T": 1, "stride_dst_state_indices_T": 1,
        "DT_SOFTPLUS": True, "TIE_HDIM": True, "USE_RS_ROUNDING": False,
    }  # fmt: skip
    derived = {  # noqa: RUF012 - the new state replaces the old one; x, dt, B and C are parts of one row
        "N": (), "null_block_id": (), "nheads_ngroups_ratio": ("nheads", "ngroups"),
        "stride_state_head": ("dim", "dstate"), "stride_state_dim": ("dstate",), "stride_x_head": ("dim",),
        "stride_C_batch": ("stride_b_batch",),
        "stride_B_group": ("dstate",), "stride_C_group": ("dstate",),
        "stride_out_batch": ("nheads", "dim"), "stride_out_head": ("dim",),
        "stride_dst_state_indices_batch": ("stride_state_indices_batch",),
    }  # fmt: skip

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside."""

        dtype: str
        state_dtype: str
        is_state_aligned: bool
        is_x_aligned: bool
        is_dt_aligned: bool
        is_b_aligned: bool
        is_c_aligned: bool
        nheads: int
        ngroups: int
        dim: int
        dstate: int
        stride_state_batch: int
        stride_x_batch: IntClass
        stride_b_batch: IntClass
        stride_dt_batch: int
        stride_state_indices_batch: int
        block_size_m: int
        philox_rounds: int
        num_warps: int

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether the model has Mamba-2 layers."""
        return any(layer.is_triton for layer in mamba2_layers(config))

    def dispatch(self, *, layer: Mamba2Layer, tile: tuple[int, int], num_decodes: int, is_mixed: bool) -> CompileKey:
        """What `selective_state_update` launches; `tile` is what vLLM's table says for this number of sequences.

        Inputs, B and C are views of a row: where there is one row, `view` gives it the stride of a compact one.
        """
        is_lone, row = num_decodes == 1, layer.conv.x_stride
        return self.CompileKey(
            dtype=layer.dtype,
            state_dtype=layer.state_dtype,
            is_state_aligned=layer.is_state_aligned,
            is_x_aligned=layer.is_aligned(_X),
            is_dt_aligned=layer.is_aligned(_DT),
            is_b_aligned=layer.is_aligned(_B),
            is_c_aligned=layer.is_aligned(_C),
            nheads=layer.n_heads,
            ngroups=layer.n_groups,
            dim=layer.head_size,
            dstate=layer.state_size,
            stride_state_batch=layer.state_stride,
            stride_x_batch=IntClass.of(layer.n_heads * layer.head_size if is_lone else row),
            stride_b_batch=IntClass.of(layer.n_groups * layer.state_size if is_lone else row),
            stride_dt_batch=row,
            stride_state_indices_batch=layer.conv.index_stride(num_decodes, is_mixed),
            block_size_m=tile[0],
            philox_rounds=layer.philox_rounds,
            num_warps=tile[1],
        )

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """For each distinct layer: every number of sequences that decode, alone and beside prefills."""
        keys: dict[str, Any] = {}
        for layer in [layer for layer in mamba2_layers(config) if layer.is_triton]:
            for is_mixed, counts in steps(config, has_mixed=True):
                for tile, part in self._tiles(config, layer, counts):
                    traced = trace_dispatch(self.dispatch, layer=layer, tile=tile, num_decodes=part, is_mixed=is_mixed)
                    keys |= {repr(key): key for key in traced}
        return list(keys.values())

    def _tiles(
        self, config: WarmupConfig, layer: Mamba2Layer, counts: IntRange
    ) -> Iterator[tuple[tuple[int, int], IntRange]]:
        """The block size and warps that vLLM's own look-up gives, with the numbers of sequences that have them."""
        look_up = self.module.try_get_optimal_ssm_config
        with answering_for(current_target(), models.settings(config).device_name):
            from vllm.platforms import current_platform

            is_blackwell = bool(current_platform.is_device_capability_family(_BLACKWELL))
            shape = (layer.head_size, layer.state_size)
            tiles = [look_up(*shape, n, layer.n_heads, layer.state_dtype, is_blackwell) for n in counts]
        for tile, run in groupby(zip(tiles, counts, strict=True), key=lambda pair: pair[0]):
            numbers = [n for _, n in run]
            yield tile, IntRange(numbers[0], numbers[-1] + 1)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes."""
        inner, shared = (key.nheads, key.dim), (key.ngroups, key.dstate)
        return entries(
            self,
            {
                **self.named(key),
                "state_ptr": TensorSpec(key.state_dtype, ("pages", *inner, key.dstate), aligned=key.is_state_aligned),
                "rand_seed_ptr": None,
                "x_ptr": TensorSpec(key.dtype, ("n_seqs", *inner), aligned=key.is_x_aligned),
                "dt_ptr": TensorSpec(key.dtype, ("n_seqs", *inner), aligned=key.is_dt_aligned),
                "dt_bias_ptr": TensorSpec(key.dtype, inner),
                "A_ptr": TensorSpec("float32", (*inner, key.dstate)),
                "B_ptr": TensorSpec(key.dtype, ("n_seqs", *shared), aligned=key.is_b_aligned),
                "C_ptr": TensorSpec(key.dtype, ("n_seqs", *shared), aligned=key.is_c_aligned),
                "D_ptr": TensorSpec(key.dtype, inner),
                "z_ptr": None,
                "out_ptr": TensorSpec(key.dtype, ("n_seqs", *inner)),
                "state_batch_indices_ptr": TensorSpec("int32", ("n_seqs", 1)),
                "dst_state_batch_indices_ptr": TensorSpec("int32", ("n_seqs", 1)),
                "num_accepted_tokens_ptr": None,
                "cu_seqlens_ptr": None,
                "null_block_id": self.module.NULL_BLOCK_ID,
                "N": 1,
                "nheads_ngroups_ratio": key.nheads // key.ngroups,
                "stride_state_head": key.dim * key.dstate,
                "stride_state_dim": key.dstate,
                "stride_x_head": key.dim,
                "stride_C_batch": key.stride_b_batch,
                "stride_B_group": key.dstate,
                "stride_C_group": key.dstate,
                "stride_out_batch": key.nheads * key.dim,
                "stride_out_head": key.dim,
                "stride_dst_state_indices_batch": key.stride_state_indices_batch,
            },
        )
