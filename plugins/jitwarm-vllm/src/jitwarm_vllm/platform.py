"""Whose answers vLLM's host code gets while keys are listed: those of the target, whatever machine this is.

vLLM's functions ask one object, `vllm.platforms.current_platform`, which everybody has imported by name. On a machine without
the target's GPU its class is replaced while keys are listed; the object stays.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jitwarm import Target

# Functions of vLLM that remember an answer about the device without being asked which device it is.
_REMEMBERED = (
    ("vllm.utils.platform_utils", "get_device_name_as_file_name"),
    ("vllm.model_executor.layers.fused_moe.fused_moe", "get_moe_configs"),
    ("vllm.model_executor.layers.fused_moe.utils", "enable_swap_ab"),
    ("vllm.model_executor.layers.mamba.ops.mamba_ssm", "get_ssm_configs"),
    ("vllm.model_executor.layers.mamba.ops.mamba_ssm", "_try_get_optimal_ssm_config_cached"),
    ("vllm.utils.deep_gemm", "is_deep_gemm_supported"),
    ("vllm.utils.deep_gemm", "is_deep_gemm_e8m0_used"),
)


@contextmanager
def answering_for(target: Target, device_name: str = "") -> Iterator[None]:
    """While entered, vLLM's platform answers for `target`. Where it already is that device's platform, nothing changes.

    Args:
        target: A CUDA target; others are left to the platform that there is.
        device_name: As `torch.cuda.get_device_name()` reports it, e.g. `NVIDIA H200`: names vLLM's files of tuned configurations.
    """
    from vllm.platforms import current_platform

    if target.kind != "cuda" or _is(current_platform, target, device_name):
        yield
        return
    before = type(current_platform)
    _forget()
    current_platform.__class__ = _class_for(before, target, device_name)
    try:
        yield
    finally:
        current_platform.__class__ = before
        _forget()


def _forget() -> None:
    """Nothing that was remembered of one device is an answer about another."""
    for module, name in _REMEMBERED:
        clear = getattr(getattr(sys.modules.get(module), name, None), "cache_clear", None)
        if clear is not None:
            clear()


def _is(platform: Any, target: Target, device_name: str) -> bool:
    """Whether the platform is this target's own."""
    try:
        capability = platform.get_device_capability() if platform.is_cuda() else None
        is_named = not device_name or platform.get_device_name() == device_name
    except Exception:  # noqa: BLE001 - a platform that cannot say is not the target's
        return False
    return capability is not None and f"{capability.major}{capability.minor}" == target.arch and is_named


def _class_for(base: type, target: Target, device_name: str) -> type:
    from vllm.platforms import PlatformEnum
    from vllm.platforms.interface import DeviceCapability

    capability = DeviceCapability(int(target.arch[:-1]), int(target.arch[-1]))

    class TargetPlatform(base):  # type: ignore[misc]
        """Answers for a target that is not there."""

        _enum = PlatformEnum.CUDA

        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            del device_id
            return capability

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            del device_id
            return device_name or f"cuda:{target.arch}"

        @classmethod
        def supports_fp8(cls) -> bool:
            return capability >= DeviceCapability(8, 9)

        @classmethod
        def support_deep_gemm(cls) -> bool:
            return capability.major in (9, 10, 12)

        @classmethod
        def is_arch_support_pdl(cls) -> bool:
            return capability >= DeviceCapability(9, 0)

    return TargetPlatform
