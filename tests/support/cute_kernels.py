"""CuTeDSL kernels for the tests. CuTeDSL, too, reads the source of what it compiles."""

from dataclasses import dataclass

import cuda.bindings.driver as cuda
import cutlass
from cutlass import Float32, cute
from cutlass.cute.runtime import make_fake_compact_tensor, make_fake_stream

from jitwarm import CuteKernel, Dim, TensorSpec


@cute.kernel
def _scale_kernel(x: cute.Tensor, factor: Float32, threads: cutlass.Constexpr[int]):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    at = block * threads + thread
    if at < x.shape[0]:
        x[at] = (x[at].to(Float32) * factor).to(x.element_type)


@cute.jit
def scale(x: cute.Tensor, factor: Float32, stream: cuda.CUstream, threads: cutlass.Constexpr[int]):
    _scale_kernel(x, factor, threads).launch(
        grid=[cute.ceil_div(x.shape[0], threads), 1, 1], block=[threads, 1, 1], stream=stream
    )


@cute.jit
def scale_by_default(
    x: cute.Tensor, factor: Float32 = 2.0, *, stream: cuda.CUstream, threads: cutlass.Constexpr[int] = 32
):
    _scale_kernel(x, factor, threads).launch(
        grid=[cute.ceil_div(x.shape[0], threads), 1, 1], block=[threads, 1, 1], stream=stream
    )


class Scale(CuteKernel):
    host = scale

    @dataclass(frozen=True)
    class CompileKey:
        dtype: str = "float32"
        threads: int = 64
        aligned: bool = True
        strided: bool = False
        divisible_by: int = 1

    def dispatch(self, *, threads: int) -> CompileKey:
        return self.CompileKey(threads=threads)

    def get_warmup_keys(self, config):
        return [self.CompileKey(threads=32), self.CompileKey(threads=64)]

    def compile_args(self, key):
        strides = (Dim("s", key.divisible_by),) if key.strided else None
        extent = Dim("n", key.divisible_by)
        return TensorSpec(key.dtype, (extent,), strides, aligned=key.aligned), Float32(1.0), self.stream, key.threads


class LibraryLike:
    """A kernel that no adapter knows: four members, `cute.compile` called by itself, twice for each key, a table of its own."""

    @dataclass(frozen=True)
    class CompileKey:
        threads: int
        plain: bool = False

    def __init__(self):
        self.compiled = {}

    def dispatch(self, *, threads):
        return self.CompileKey(threads)

    def get_warmup_keys(self, config):
        return [self.CompileKey(32)]

    def compile(self, key):
        for dtype in (cutlass.Float32, cutlass.BFloat16):
            x = make_fake_compact_tensor(dtype, (cute.sym_int(),), stride_order=(0,), assumed_align=16)
            stream = make_fake_stream(use_tvm_ffi_env_stream=not key.plain)
            options = "" if key.plain else "--enable-tvm-ffi"
            self.compiled[key.threads, dtype] = cute.compile(
                scale, x, Float32(1.0), stream, key.threads, options=options
            )
