"""The entry point: every family of kernels that this vLLM has."""

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from jitwarm import Backend, Target, TunedArtifact, WarmupConfig, hookimpl
from jitwarm_vllm.models import PLUGIN

# Modules with `kernels() -> list`; each imports what it needs of vLLM inside.
_FAMILIES: tuple[str, ...] = ("moe", "attention", "prefill", "lora", "sampling", "processing", "state", "deep_gemm")


@hookimpl
def jitwarm_kernels(config: WarmupConfig, target: Target) -> Iterable[Any]:
    """Every kernel of every family; a family that this version of vLLM lacks is left out by its own module."""
    del target
    if not _is_asked(config):
        return []
    return [kernel for name in _FAMILIES for kernel in importlib.import_module(f"jitwarm_vllm.{name}").kernels()]


@hookimpl
def jitwarm_backends() -> Iterable[Backend]:
    """DeepGEMM's compiler; vLLM's other kernels are Triton's."""
    from jitwarm_vllm.deep_gemm import DeepGemmBackend

    return [DeepGemmBackend()]


@hookimpl
def jitwarm_tuned_artifacts(config: WarmupConfig, target: Target) -> Iterable[TunedArtifact]:
    """What vLLM tunes on the device, as far as it can be kept and shared."""
    from jitwarm_vllm import flashinfer_tuning

    return flashinfer_tuning.artifacts(config, target)


def _is_asked(config: WarmupConfig) -> bool:
    """Whether there is a model, or an engine that launches Triton kernels.

    vLLM takes seconds to import, and nobody else is to wait for it.
    """
    if config.for_plugin(PLUGIN):
        return True
    imported = sys.modules.get("vllm.triton_utils")
    if imported is not None:
        return bool(getattr(imported, "HAS_TRITON", True))
    return bool(config.model or config.moe or config.attention)
