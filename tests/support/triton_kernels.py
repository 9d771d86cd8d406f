"""Kernels for the Triton tests. In a file of their own because Triton reads the source of what it compiles."""

from dataclasses import dataclass

import triton
import triton.language as tl

from jitwarm import IntClass, TensorSpec, TritonKernel


@triton.jit
def scale(x_ptr, out_ptr, n, factor, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n) * factor, mask=at < n)


class Scale(TritonKernel):
    """Every kind of thing that Triton specializes on is a field."""

    kernel = scale
    options = ("num_warps", "num_stages")
    derived = {"x_ptr": ("dtype", "aligned")}

    @dataclass(frozen=True)
    class CompileKey:
        dtype: str = "float32"
        aligned: bool = True
        n: IntClass = IntClass.MULTIPLE_OF_16
        block: int = 64
        num_warps: int = 4
        num_stages: int = 3

    def dispatch(self, *, n: int, dtype: str = "float32") -> CompileKey:
        return self.CompileKey(dtype=dtype, n=IntClass.of(n))

    def get_warmup_keys(self, config):
        return [self.CompileKey(dtype=config.dtype)]

    def launch_args(self, key):
        return {
            "x_ptr": TensorSpec(key.dtype, ("n",), aligned=key.aligned),
            "out_ptr": TensorSpec(key.dtype, ("n",)),
            "n": key.n,
            "factor": 2.0,
            "BLOCK": key.block,
        }


@triton.jit
def flagged(out_ptr, FLAG: tl.constexpr):
    tl.store(out_ptr, FLAG)


class Flagged(TritonKernel):
    kernel = flagged
    fixed = {"out_ptr": TensorSpec("float32", (1,))}

    @dataclass(frozen=True)
    class CompileKey:
        flag: object

    def dispatch(self, *, flag: object) -> CompileKey:
        return self.CompileKey(flag)

    def get_warmup_keys(self, config):
        return [self.CompileKey(1), self.CompileKey(True), self.CompileKey(1.0)]

    def launch_args(self, key):
        return {"FLAG": key.flag}


@triton.jit
def rows_sum(x_ptr, out_ptr, n, BLOCK: tl.constexpr, SHARED: tl.constexpr):
    at = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        total += tl.load(x_ptr + start + at, mask=start + at < n, other=0.0)
    tl.static_assert(BLOCK < 4096)
    tl.store(out_ptr, tl.sum(total, axis=0))


@triton.jit
def matmul(a_ptr, b_ptr, c_ptr, k, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    rows, columns, inner = tl.arange(0, BLOCK), tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK, BLOCK], dtype=tl.float32)
    for start in range(0, k, BLOCK_K):
        a = tl.load(a_ptr + rows[:, None] * k + start + inner[None, :])
        b = tl.load(b_ptr + (start + inner)[:, None] * k + columns[None, :])
        total = tl.dot(a, b, total)
    tl.store(c_ptr + rows[:, None] * BLOCK + columns[None, :], total)


class Matmul(TritonKernel):
    kernel = matmul
    options = ("num_warps", "num_stages")

    @dataclass(frozen=True)
    class CompileKey:
        dtype: str
        block: int
        block_k: int
        num_stages: int
        num_warps: int = 4
        k: IntClass = IntClass.MULTIPLE_OF_16

    def dispatch(self, *, block: int) -> CompileKey:
        return self.CompileKey("float16", block, 64, 3)

    def get_warmup_keys(self, config):
        return []

    def launch_args(self, key):
        tile = TensorSpec(key.dtype, ("m", "k"))
        c = TensorSpec("float32", ("m", "n"))
        return {"a_ptr": tile, "b_ptr": tile, "c_ptr": c, "k": key.k, "BLOCK": key.block, "BLOCK_K": key.block_k}


PRE_HOOKED: list[dict] = []


def _prune(configs, named_args, **_):
    """A pruning function as authors write them: it looks at an argument's value."""
    return [config for config in configs if config.kwargs["BLOCK"] <= named_args["n"]]


tuned_rows_sum = triton.autotune(
    configs=[
        triton.Config({"BLOCK": 64}, num_warps=1, pre_hook=PRE_HOOKED.append),
        triton.Config({"BLOCK": 128}, num_warps=2),
        triton.Config({"BLOCK": 4096}, num_warps=4),  # the kernel's static_assert refuses it
        triton.Config({"BLOCK": 8192}, num_warps=8),  # pruned away
    ],
    key=["n"],
    prune_configs_by={"early_config_prune": _prune},
)(triton.heuristics({"SHARED": lambda args: args["n"] % 2 == 0 and args["BLOCK"] >= 128})(rows_sum))

# The order that some libraries use, in which Triton's own warmup would benchmark.
heuristics_over_tuned = triton.heuristics({"SHARED": lambda args: args["n"] % 2 == 0})(
    triton.autotune(
        configs=[triton.Config({"BLOCK": 64}, num_warps=1), triton.Config({"BLOCK": 128}, num_warps=2)], key=["n"]
    )(rows_sum)
)


class _RowsSum(TritonKernel):
    kernel = tuned_rows_sum

    @dataclass(frozen=True)
    class CompileKey:
        dtype: str
        n: int

    def dispatch(self, *, n: int, dtype: str) -> CompileKey:
        return self.CompileKey(dtype, n)

    def get_warmup_keys(self, config):
        return [self.CompileKey("float32", 4096)]

    def launch_args(self, key):
        return {"x_ptr": TensorSpec(key.dtype, ("n",)), "out_ptr": TensorSpec("float32", (1,)), "n": key.n}


class TunedRowsSum(_RowsSum):
    kernel = tuned_rows_sum
    CompileKey = _RowsSum.CompileKey


class HeuristicsOverTuned(_RowsSum):
    kernel = heuristics_over_tuned
    CompileKey = _RowsSum.CompileKey


class ClassOnly(_RowsSum):
    """Gives a heuristic only the class of the integer that it looks at."""

    kernel = heuristics_over_tuned
    CompileKey = _RowsSum.CompileKey

    def launch_args(self, key):
        return {**super().launch_args(key), "n": IntClass.of(key.n)}
