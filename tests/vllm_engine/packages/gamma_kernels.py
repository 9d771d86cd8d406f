"""A third party's package: its kernel knows nothing of jitwarm's classes.

So every compiler is imported for it, which takes seconds: most engines are started without.
"""

from dataclasses import dataclass

import triton
import triton.language as tl

from jitwarm import hookimpl


@triton.jit
def fill(out_ptr, VALUE: tl.constexpr):
    tl.store(out_ptr, VALUE)


class Fill:
    """The four members and nothing else; compiles by Triton's own means."""

    @dataclass(frozen=True)
    class CompileKey:
        value: int

    def dispatch(self, *, value):
        return self.CompileKey(value)

    def get_warmup_keys(self, config):
        return [self.CompileKey(7)]

    def compile(self, key):
        fill.warmup(triton.MockTensor(tl.float32), VALUE=key.value, grid=(1,))


@hookimpl
def jitwarm_kernels():
    return [Fill()]
