"""out = silu(x[:, :n]) * x[:, n:], the gated activation of most MLP blocks, in CuTeDSL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cuda.bindings.driver as cuda
import cutlass
from cutlass import Float32, Int64, cute

from jitwarm import Choices, CuteKernel, TensorSpec, WarmupConfig, dtype_name, trace_dispatch

if TYPE_CHECKING:
    import torch

ACCESS_BYTES = 16  # the widest load of one thread
ELEMENT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


@cute.kernel
def _silu_and_mul_kernel(
    x: cute.Tensor,  # (m, 2 * n)
    out: cute.Tensor,  # (m, n)
    n: cutlass.Constexpr[int],
    threads: cutlass.Constexpr[int],
    vec: cutlass.Constexpr[int],
):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    row = Int64(block)  # row * 2n passes 2**31 in long prefills

    # Seen as tiles of (1, vec), column tile j of the gate lies n // vec tiles before that of "up".
    tiles = cutlass.const_expr(n // vec)
    for step in cutlass.range_constexpr(cute.ceil_div(tiles, threads)):
        j = step * threads + thread
        # A tile is wholly inside the row or wholly outside, because vec divides n.
        if j < tiles:
            gate = cute.local_tile(x, (1, vec), (row, j)).load().to(Float32)
            up = cute.local_tile(x, (1, vec), (row, tiles + j)).load().to(Float32)
            silu = gate / (1.0 + cute.math.exp(-gate))
            cute.local_tile(out, (1, vec), (row, j)).store((silu * up).to(out.element_type))


@cute.jit
def silu_and_mul(
    x: cute.Tensor,
    out: cute.Tensor,
    stream: cuda.CUstream,
    n: cutlass.Constexpr[int],
    threads: cutlass.Constexpr[int],
    vec: cutlass.Constexpr[int],
):
    _silu_and_mul_kernel(x, out, n, threads, vec).launch(grid=[x.shape[0], 1, 1], block=[threads, 1, 1], stream=stream)


class SiluAndMul(CuteKernel):
    """What the kernel above can become."""

    name = "silu_and_mul"
    host = silu_and_mul

    @dataclass(frozen=True)
    class CompileKey:
        """The number of rows is dynamic: one kernel serves every batch."""

        dtype: str
        n: int
        threads: int
        vec: int

    def dispatch(self, *, n: int, dtype: str) -> CompileKey:
        """Vectors where every row starts aligned; as many threads as a row has vectors, within one to eight warps."""
        vec = ACCESS_BYTES // ELEMENT_BYTES[dtype]
        if n % vec:
            vec = 1
        if n // vec >= 256:
            threads = 256
        elif n // vec >= 64:
            threads = 64
        else:
            threads = 32
        return self.CompileKey(dtype=dtype, n=n, threads=threads, vec=vec)

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """The intermediate sizes of one rank."""
        sizes = config.for_plugin("example").get("intermediate_sizes", [14336, 1001])
        return trace_dispatch(self.dispatch, n=Choices(*(n // config.tp_size for n in sizes)), dtype=config.dtype)

    def compile_args(self, key: CompileKey) -> Sequence[Any]:
        """The host function's arguments: a string is a dynamic extent, and "m" is the same one in both tensors."""
        align = key.vec * ELEMENT_BYTES[key.dtype]
        return (
            TensorSpec(key.dtype, ("m", 2 * key.n), align_bytes=align),
            TensorSpec(key.dtype, ("m", key.n), align_bytes=align),
            self.stream,
            key.n,
            key.threads,
            key.vec,
        )


SILU_AND_MUL = SiluAndMul()


def silu_mul(x: "torch.Tensor", out: "torch.Tensor") -> None:
    """Write silu(x[:, :n]) * x[:, n:] to `out`. Shapes: `x`: (m, 2 n), `out`: (m, n), both contiguous."""
    SILU_AND_MUL(x, out, n=out.shape[1], dtype=dtype_name(x.dtype))
