"""The plugin of `build.py`: a matrix product in Triton whose every key is another tile."""

from dataclasses import dataclass

import triton
import triton.language as tl

from jitwarm import IntClass, TensorSpec, TritonKernel, hookimpl

TILES = [
    (m, n, k, stages, dtype)
    for dtype in ("bfloat16", "float16")
    for stages in (2, 3, 4)
    for m in (64, 128)
    for n in (64, 128)
    for k in (32, 64)
]


@triton.jit
def _matmul(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        here = start + inner
        left = tl.load(a + rows[:, None] * k + here[None, :], mask=here[None, :] < k, other=0.0)
        right = tl.load(b + here[:, None] * n + columns[None, :], mask=here[:, None] < k, other=0.0)
        total += tl.dot(left, right)
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    tl.store(c + rows[:, None] * n + columns[None, :], total.to(c.dtype.element_ty), mask=inside)


class Matmul(TritonKernel):
    name = "matmul"
    kernel = _matmul
    options = ("num_warps", "num_stages")
    fixed = dict.fromkeys("mnk", IntClass.MULTIPLE_OF_16)

    @dataclass(frozen=True)
    class CompileKey:
        bm: int
        bn: int
        bk: int
        num_stages: int
        dtype: str
        num_warps: int = 4

    def dispatch(self, *, tile):
        return self.CompileKey(*TILES[tile])

    def get_warmup_keys(self, config):
        return [self.dispatch(tile=tile) for tile in range(config.for_plugin("bench")["n"])]

    def launch_args(self, key):
        matrix = TensorSpec(key.dtype, ("m", "n"))
        return {
            **dict.fromkeys("abc", matrix),
            "BM": key.bm,
            "BN": key.bn,
            "BK": key.bk,
        }


@hookimpl
def jitwarm_kernels():
    return [Matmul()]
