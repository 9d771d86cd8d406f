"""The entry point: every family of kernels that this vLLM has."""

import importlib
from collections.abc import Iterable
from typing import Any

from jitwarm import Target, TunedArtifact, WarmupConfig, hookimpl

# Modules with `kernels() -> list`; each imports what it needs of vLLM inside.
_FAMILIES: tuple[str, ...] = ()


@hookimpl
def jitwarm_kernels(config: WarmupConfig, target: Target) -> Iterable[Any]:
    """Every kernel of every family; a family that this version of vLLM lacks is left out by its own module."""
    del config, target
    return [kernel for name in _FAMILIES for kernel in importlib.import_module(f"jitwarm_vllm.{name}").kernels()]


@hookimpl
def jitwarm_tuned_artifacts(config: WarmupConfig, target: Target) -> Iterable[TunedArtifact]:
    """What vLLM tunes on the device, as far as it can be kept and shared."""
    from jitwarm_vllm import flashinfer_tuning

    return flashinfer_tuning.artifacts(config, target)
