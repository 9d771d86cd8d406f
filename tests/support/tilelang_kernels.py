"""TileLang kernels for the tests, lazy and eager. TileLang reads the source of what it compiles."""

from dataclasses import dataclass

import tilelang
import tilelang.language as T

from jitwarm import TileLangKernel


@tilelang.jit(out_idx=[-1])  # the index that TileLang 0.1.15 rewrites when it loads from disk
def lazy_add(N, block=128, dtype="float32"):
    m = T.dynamic("m")

    @T.prim_func
    def add(A: T.Tensor((m, N), dtype), B: T.Tensor((m, N), dtype)):
        with T.Kernel(m, threads=block) as row:
            for i in T.Parallel(N):
                B[row, i] = A[row, i] + T.cast(1, dtype)

    return add


@tilelang.jit
def eager_add(A, B, block: int = 128):
    N = T.const("N")
    A: T.Tensor[[N], "float32"]
    B: T.Tensor[[N], "float32"]
    with T.Kernel(T.ceildiv(N, block), threads=block) as b:
        for i in T.Parallel(block):
            B[b * block + i] = A[b * block + i] + 1.0


@tilelang.jit
def broken(N):
    @T.prim_func
    def body(A: T.Tensor((N,), "float32")):
        with T.Kernel(1, threads=32):
            T.call_extern("handle", "no_such_function", A.data)

    return body


class _Kernel(TileLangKernel):
    factory = lazy_add

    @dataclass(frozen=True)
    class CompileKey:
        n: int

    def dispatch(self, *, n: int) -> CompileKey:
        return self.CompileKey(n)

    def get_warmup_keys(self, config):
        return [self.CompileKey(256), self.CompileKey(512)]

    def factory_args(self, key):
        return {"N": key.n}


class LazyAdd(_Kernel):
    pass


class EagerAdd(_Kernel):
    factory = eager_add

    def factory_args(self, key):
        return {"N": key.n, "block": 64}


class Broken(_Kernel):
    factory = broken


def undecorated(N):
    return N


class Undecorated(_Kernel):
    factory = staticmethod(undecorated)
