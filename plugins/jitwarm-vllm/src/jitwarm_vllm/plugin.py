"""The entry point: every family of kernels that this vLLM has."""

import importlib
from collections.abc import Iterable
from typing import Any

from jitwarm import Target, WarmupConfig, hookimpl

# Modules with `kernels() -> list`; each imports what it needs of vLLM inside.
_FAMILIES: tuple[str, ...] = ("moe",)


@hookimpl
def jitwarm_kernels(config: WarmupConfig, target: Target) -> Iterable[Any]:
    """Every kernel of every family; a family that this version of vLLM lacks is left out by its own module."""
    del config, target
    return [kernel for name in _FAMILIES for kernel in importlib.import_module(f"jitwarm_vllm.{name}").kernels()]
