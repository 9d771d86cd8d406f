"""Strides of the scales of 8-bit floats, as vLLM's own launcher hands them to the kernel.

Versions of vLLM differ in what they pass for a scale with one dimension, or with one row. The launcher is asked: it is called
once, with shapes alone, and what stands for the kernel notes the arguments.
"""

import inspect
import types
from dataclasses import dataclass
from typing import Any

from jitwarm import IntClass, MoELayer
from jitwarm_vllm.moe_layers import Gemm, gemm

_LAUNCHER, _KERNEL = "invoke_fused_moe_triton_kernel", "fused_moe_kernel"


@dataclass(frozen=True)
class Scales:
    """What a launch passes beside the scales of input and weight. All are 0 where there are none."""

    stride_asm: int = 0
    stride_ask: int = 0
    stride_bse: int = 0
    stride_bsk: int = 0
    stride_bsn: int = 0

    def fields(self) -> dict[str, IntClass]:
        """As key fields."""
        return {
            "stride_asm": IntClass.of(self.stride_asm),
            "stride_ask": IntClass.of(self.stride_ask),
            "stride_bse": IntClass.of(self.stride_bse),
            "stride_bsk": IntClass.of(self.stride_bsk),
            "stride_bsn": IntClass.of(self.stride_bsn),
        }


def scales(module: Any, layer: MoELayer) -> tuple[Scales, Scales]:
    """The strides in both GEMMs of a layer.

    Args:
        module: vLLM's, with the launcher.
        layer: The layer; one without 8-bit floats has no scales.
    """
    if not layer.activation_scale:
        return Scales(), Scales()
    first, second = (_asked(module, layer, gemm(layer, is_down=is_down)) for is_down in (False, True))
    return first, second


def _asked(module: Any, layer: MoELayer, one: Gemm) -> Scales:
    import torch

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    input_shape, weight_shape = _shapes(layer, one)
    indices = empty(1, dtype=torch.int32)
    arguments = {
        "A": empty(1, one.k, dtype=torch.float8_e4m3fn),
        "B": empty(layer.n_local_experts, one.n, one.k, dtype=torch.float8_e4m3fn),
        "C": empty(1, one.top_k, one.n, dtype=torch.bfloat16),
        "A_scale": empty(*input_shape),
        "B_scale": empty(*weight_shape),
        "sorted_token_ids": indices,
        "expert_ids": indices,
        "num_tokens_post_padded": indices,
        "top_k": one.top_k,
        "config": {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 128, "BLOCK_SIZE_K": 128},
        "use_fp8_w8a8": True,
        "per_channel_quant": layer.activation_scale == "token",
        "block_shape": [layer.block_n, layer.block_k] if layer.block_k else None,
    }
    bound = _launch(module, arguments)
    return Scales(**{name: bound[name] for name in Scales.__dataclass_fields__})


def _shapes(layer: MoELayer, one: Gemm) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the scales: of an input with one row, and of the weights."""
    if layer.activation_scale == "block":
        columns = -(-one.k // layer.block_k)
        return (1, columns), (layer.n_local_experts, -(-one.n // layer.block_n), columns)
    if layer.activation_scale == "token":
        return (1, 1), (layer.n_local_experts, one.n, 1)
    return (1,), (layer.n_local_experts,)


def _launch(module: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call vLLM's launcher, as a copy whose kernel takes notes. Parameter -> argument of what it would launch."""
    launcher = getattr(module, _LAUNCHER)
    kernel = _Noting([parameter.name for parameter in getattr(module, _KERNEL).params])
    copy = types.FunctionType(launcher.__code__, {**launcher.__globals__, _KERNEL: kernel}, launcher.__name__)
    copy.__defaults__, copy.__kwdefaults__ = launcher.__defaults__, launcher.__kwdefaults__
    parameters = inspect.signature(launcher).parameters.values()
    needed = {p.name: _NOTHING.get(p.annotation) for p in parameters if p.default is p.empty}
    copy(**{**needed, **arguments})
    return kernel.bound


# What a launcher's parameter is that nothing here decides.
_NOTHING = {bool: False, "bool": False}


class _Noting:
    """Stands for the kernel: `kernel[grid](...)` binds the arguments and launches nothing."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.bound: dict[str, Any] = {}

    def __getitem__(self, grid: Any) -> Any:
        return self._note

    def _note(self, *args: Any, **kwargs: Any) -> None:
        self.bound = {**dict(zip(self._names, args, strict=False)), **kwargs}
