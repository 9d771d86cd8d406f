"""C[m, N] = A[m, K] @ B[N, K]^T with any m in one kernel, in TileLang."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import tilelang
import tilelang.language as T

from jitwarm import IntRange, TileLangKernel, WarmupConfig, dtype_name, rows, trace_dispatch

if TYPE_CHECKING:
    import torch


# No target here: a serving process takes the GPU it runs on, and a build without a GPU sets
# gemm.target before it compiles. out_idx is [2], not [-1]: TileLang 0.1.15 rewrites a negative index
# in this list when it loads a kernel from disk, and the cache key of the next kernel holds the list.
@tilelang.jit(out_idx=[2])
def gemm(
    N: int,
    K: int,
    block_M: int = 128,
    block_N: int = 128,
    block_K: int = 64,
    num_stages: int = 3,
    threads: int = 128,
    dtype: str = "bfloat16",
):
    m = T.dynamic("m")

    @T.prim_func
    def gemm_kernel(
        A: T.Tensor((m, K), dtype),
        B: T.Tensor((N, K), dtype),  # as torch.nn.Linear keeps its weight
        C: T.Tensor((m, N), dtype),
    ):
        with T.Kernel(T.ceildiv(N, block_N), T.ceildiv(m, block_M), threads=threads) as (bx, by):
            A_tile = T.alloc_shared((block_M, block_K), dtype)
            B_tile = T.alloc_shared((block_N, block_K), dtype)
            C_tile = T.alloc_fragment((block_M, block_N), "float32")

            T.clear(C_tile)
            for k in T.Pipelined(T.ceildiv(K, block_K), num_stages=num_stages):
                # T.copy reads zeros outside A and B and writes nothing outside C, so neither m
                # nor N nor K has to be a multiple of its block.
                T.copy(A[by * block_M, k * block_K], A_tile)
                T.copy(B[bx * block_N, k * block_K], B_tile)
                T.gemm(A_tile, B_tile, C_tile, transpose_B=True)
            T.copy(C_tile, C[by * block_M, bx * block_N])  # converts fp32 to dtype

    return gemm_kernel


class Gemm(TileLangKernel):
    """What the factory above can make."""

    name = "gemm"
    factory = gemm

    @dataclass(frozen=True)
    class CompileKey:
        """The factory's arguments. `m` is dynamic, and yet it decides the tile."""

        N: int
        K: int
        block_M: int
        block_N: int
        block_K: int
        num_stages: int
        threads: int
        dtype: str

    def dispatch(self, *, m: int, n: int, k: int, dtype: str) -> CompileKey:
        """Small tiles for decode, wide ones for prefill."""
        if m <= 64:
            block_m, block_n, threads = 64, 64, 128
        elif m <= 512 or n < 2048:
            block_m, block_n, threads = 64, 128, 128
        else:
            block_m, block_n, threads = 128, 128, 256
        return self.CompileKey(
            N=n, K=k, block_M=block_m, block_N=block_n, block_K=64, num_stages=3, threads=threads, dtype=dtype
        )

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """Each weight's shape, for every number of tokens that a step can have: three tiles, not thousands of sizes."""
        shapes = config.for_plugin("example").get("gemm_shapes", [[4096, 4096]])
        return trace_dispatch(
            self.dispatch,
            rows(*({"n": n // config.tp_size, "k": k} for n, k in shapes)),
            m=IntRange(1, config.max_num_batched_tokens + 1),
            dtype=config.dtype,
        )

    def factory_args(self, key: CompileKey) -> dict[str, Any]:
        """Here the key is just what the factory takes."""
        return asdict(key)


GEMM = Gemm()


def matmul(a: "torch.Tensor", b: "torch.Tensor") -> "torch.Tensor":
    """`a @ b.T`. Shapes: `a`: (m, k), `b`: (n, k), both contiguous; the result: (m, n)."""
    return GEMM(a, b, m=a.shape[0], n=b.shape[0], k=a.shape[1], dtype=dtype_name(a.dtype))
