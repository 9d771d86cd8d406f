"""Fused residual add and RMSNorm, in Triton.

residual = x + residual                     (in place)
out      = rms_norm(residual) * weight
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from jitwarm import Choices, IntClass, TensorSpec, TritonKernel, WarmupConfig, dtype_name, rows, trace_dispatch

if TYPE_CHECKING:
    import torch

# The longest row that one program keeps in registers: 16 fp32 values per thread at 16 warps.
MAX_BLOCK_SIZE = 8192
# Below this many elements per thread a row has too little work for another warp.
ELEMENTS_PER_WARP = 512


# The runtime arguments carry no annotation on purpose: Triton reads "hidden_size: int" as "always
# 64-bit" and stops specializing on the value, and with that on "divisible by 16", which is what
# lets it use vector loads.
@triton.jit
def _fused_add_rms_norm_kernel(
    x_ptr,  # [m, hidden_size], row stride x_row_stride
    residual_ptr,  # [m, hidden_size], contiguous, updated in place
    weight_ptr,  # [hidden_size]
    out_ptr,  # [m, hidden_size], contiguous
    x_row_stride,
    hidden_size,
    eps,
    BLOCK_SIZE: tl.constexpr,
    ONE_PASS: tl.constexpr,  # the whole row fits in one block: hidden_size <= BLOCK_SIZE
):
    # 64-bit, because row * stride passes 2**31 in long prefills.
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_row_stride
    residual_ptr += row * hidden_size
    out_ptr += row * hidden_size
    columns = tl.arange(0, BLOCK_SIZE)

    if ONE_PASS:
        mask = columns < hidden_size
        x = tl.load(x_ptr + columns, mask=mask, other=0.0).to(tl.float32)
        residual = tl.load(residual_ptr + columns, mask=mask, other=0.0).to(tl.float32)
        # Normalize what the residual stream will hold, i.e. the sum after rounding.
        total = (x + residual).to(residual_ptr.dtype.element_ty)
        tl.store(residual_ptr + columns, total, mask=mask)

        value = total.to(tl.float32)
        inverse_rms = tl.rsqrt(tl.sum(value * value, axis=0) / hidden_size + eps)
        weight = tl.load(weight_ptr + columns, mask=mask, other=0.0).to(tl.float32)
        # The store converts to the element type of out_ptr.
        tl.store(out_ptr + columns, value * inverse_rms * weight, mask=mask)
    else:
        # Masked-off elements are 0 and add nothing to the sum of squares.
        squares = tl.zeros([BLOCK_SIZE], dtype=tl.float32)
        for start in range(0, hidden_size, BLOCK_SIZE):
            index = start + columns
            mask = index < hidden_size
            x = tl.load(x_ptr + index, mask=mask, other=0.0).to(tl.float32)
            residual = tl.load(residual_ptr + index, mask=mask, other=0.0).to(tl.float32)
            value = (x + residual).to(residual_ptr.dtype.element_ty).to(tl.float32)
            squares += value * value
        inverse_rms = tl.rsqrt(tl.sum(squares, axis=0) / hidden_size + eps)

        # The sum is made again rather than stored above and read back here: a read after a write
        # to global memory would need a barrier, and the second read of x comes from the cache.
        for start in range(0, hidden_size, BLOCK_SIZE):
            index = start + columns
            mask = index < hidden_size
            x = tl.load(x_ptr + index, mask=mask, other=0.0).to(tl.float32)
            residual = tl.load(residual_ptr + index, mask=mask, other=0.0).to(tl.float32)
            total = (x + residual).to(residual_ptr.dtype.element_ty)
            tl.store(residual_ptr + index, total, mask=mask)
            weight = tl.load(weight_ptr + index, mask=mask, other=0.0).to(tl.float32)
            tl.store(out_ptr + index, total.to(tl.float32) * inverse_rms * weight, mask=mask)


class FusedAddRMSNorm(TritonKernel):
    """What the kernel above can become."""

    name = "fused_add_rms_norm"
    kernel = _fused_add_rms_norm_kernel
    options = ("num_warps",)

    @dataclass(frozen=True)
    class CompileKey:
        """Everything that Triton compiles another kernel for. Field names are the kernel's parameter names, case aside."""

        dtype: str
        x_row_stride: IntClass
        hidden_size: IntClass
        block_size: int
        one_pass: bool
        num_warps: int

    def dispatch(self, *, hidden_size: int, x_row_stride: int, dtype: str) -> CompileKey:
        """The launch's own choice. It knows nothing of warm-up; the warm-up follows it."""
        block_size = min(triton.next_power_of_2(hidden_size), MAX_BLOCK_SIZE)
        return self.CompileKey(
            dtype=dtype,
            x_row_stride=IntClass.of(x_row_stride),
            hidden_size=IntClass.of(hidden_size),
            block_size=block_size,
            one_pass=hidden_size <= block_size,
            num_warps=min(max(block_size // ELEMENTS_PER_WARP, 4), 16),
        )

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """Each hidden size with the strides that its rows can have: contiguous, or the first part of a fused projection."""
        sizes = config.for_plugin("example").get("hidden_sizes", [4096, 5120, 16384])
        return trace_dispatch(
            self.dispatch,
            rows(*({"hidden_size": n, "x_row_stride": Choices(n, n + 8)} for n in sizes)),
            dtype=config.dtype,
        )

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What a launch passes for each parameter: descriptors, never tensors."""
        row = TensorSpec(key.dtype, ("m", "n"))
        return {
            "x_ptr": row,
            "residual_ptr": row,
            "weight_ptr": TensorSpec(key.dtype, ("n",)),
            "out_ptr": row,
            "x_row_stride": key.x_row_stride,
            "hidden_size": key.hidden_size,
            "eps": 1e-6,
            "BLOCK_SIZE": key.block_size,
            "ONE_PASS": key.one_pass,
        }


RMS_NORM = FusedAddRMSNorm()


def fused_add_rms_norm(
    x: "torch.Tensor", residual: "torch.Tensor", weight: "torch.Tensor", eps: float = 1e-6
) -> "torch.Tensor":
    """Add `x` to `residual` in place and return the normalized sum.

    Shapes: `x`, `residual`: (m, n), rows contiguous, `residual` contiguous as a whole; `weight`: (n,).
    """
    m, hidden_size = residual.shape
    out = residual.new_empty(residual.shape)
    RMS_NORM(  # positional: what is launched; by name: what decides the key
        x, residual, weight, out, x.stride(0), hidden_size, eps,
        grid=(m,), hidden_size=hidden_size, x_row_stride=x.stride(0), dtype=dtype_name(x.dtype),
    )  # fmt: skip
    return out
