"""A plugin that keeps every promise, for a backend of its own that keeps what it builds.

Wrong ones are made of it: a module that `kits.install` writes begins with `from bench_plugin import *` and gives one thing anew.
"""

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jitwarm import Backend, Choices, CompileCount, IntRange, encode_key, hookimpl, key_digest, trace_dispatch

__all__ = ["Bench", "Kernel", "Key", "dataclass", "hookimpl", "jitwarm_backends", "os", "trace_dispatch", "yields"]


class Bench(Backend):
    """Its compiler writes a file per key, and finds it again."""

    name = "bench"
    cache_variables = {"BENCH_CACHE_DIR": "bench"}
    count = CompileCount()

    def owns(self, kernel):
        return isinstance(kernel, Kernel)

    @contextmanager
    def count_compiles(self):
        before, Bench.count = Bench.count, CompileCount()
        try:
            yield Bench.count
        finally:
            Bench.count = before


@dataclass(frozen=True)
class Key:
    block: int
    dtype: str


class Kernel:
    CompileKey = Key
    name = "copy"

    def dispatch(self, *, n, dtype):
        return Key(16 if n <= 64 else 128, dtype)

    def get_warmup_keys(self, config):
        return trace_dispatch(self.dispatch, n=IntRange(1, 1025), dtype=Choices("bfloat16", "float32"))

    def compile(self, key):
        file = Path(os.environ["BENCH_CACHE_DIR"]) / key_digest("bench", encode_key(key))
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("built")
            Bench.count.add_compile()
        Bench.count.add_files([file])


@hookimpl
def jitwarm_backends():
    return [Bench()]


def yields(*kernels):
    """A `jitwarm_kernels` hook."""

    @hookimpl
    def jitwarm_kernels(config, target):
        return kernels

    return jitwarm_kernels
