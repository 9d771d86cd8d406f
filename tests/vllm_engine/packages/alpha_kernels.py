"""A third party's package: Triton kernels, one of them for the first tensor-parallel rank only."""

from dataclasses import dataclass

import triton
import triton.language as tl

from jitwarm import IntClass, IntRange, TensorSpec, TritonKernel, hookimpl, trace_dispatch


@triton.jit
def scale(x_ptr, out_ptr, n, factor, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n) * factor, mask=at < n)


class Scale(TritonKernel):
    kernel = scale
    options = ("num_warps", "num_stages")

    @dataclass(frozen=True)
    class CompileKey:
        dtype: str
        n: IntClass
        block: int
        num_warps: int = 4
        num_stages: int = 3

    def dispatch(self, *, n: int, dtype: str) -> CompileKey:
        return self.CompileKey(dtype=dtype, n=IntClass.of(n), block=64 if n <= 64 else 128)

    def get_warmup_keys(self, config):
        return trace_dispatch(self.dispatch, n=IntRange(16, config.max_num_batched_tokens + 1, 16), dtype=config.dtype)

    def launch_args(self, key):
        tensor = TensorSpec(key.dtype, ("n",))
        return {"x_ptr": tensor, "out_ptr": tensor, "n": key.n, "factor": 2.0, "BLOCK": key.block}


class FirstRankOnly(Scale):
    name = "first_rank_only"

    def is_for_rank(self, config):
        return config.tp_rank == 0

    def get_warmup_keys(self, config):
        return [self.CompileKey(config.dtype, IntClass.OTHER, 32)]


@hookimpl
def jitwarm_kernels():
    return [Scale(), FirstRankOnly()]
