"""Kernels as vLLM has them in its own tree: subclasses of its `VllmJitKernel`, registered with its registry."""

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl
from vllm.model_executor.warmup.jit_warmup import VllmJitKernel, WarmupChoices


@triton.jit
def fill(out_ptr, VALUE: tl.constexpr):
    tl.store(out_ptr, VALUE)


class Fill(VllmJitKernel):
    @dataclass(frozen=True)
    class CompileKey:
        value: int

    def dispatch(self, *, value: int) -> CompileKey:
        return self.CompileKey(value=value * 2)

    def get_warmup_keys(self, *, values=(1,), vllm_config=None):
        if vllm_config is not None:
            values = vllm_config["values"]
        return self._trace_dispatch(self.dispatch)(value=WarmupChoices(*values))

    def compile(self, compile_key):
        fill.warmup(triton.MockTensor(tl.float32), VALUE=compile_key.value, grid=(1,))


class Failing(Fill):
    def compile(self, compile_key):
        raise ValueError("no such tile")


class Opaque(Fill):
    """Its keys hold an object that has no canonical text."""

    @dataclass(frozen=True)
    class CompileKey:
        value: int
        launch: Any = None

    def get_warmup_keys(self, *, values=(1,)):
        return [self.CompileKey(value, launch=object()) for value in values]


FILL = Fill()
FAILING = Failing()
OPAQUE = Opaque()
