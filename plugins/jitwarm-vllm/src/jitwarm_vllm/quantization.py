"""A checkpoint's `quantization_config`: what of it decides kernels."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jitwarm import JitwarmError

_SMALLEST_GROUP = 32
_SMALLEST_BLOCK = 32
_WEIGHT_ONLY = {4: "int4_w4a16", 8: "int8_w8a16"}


class ModelConfigError(JitwarmError):
    """A `config.json` that cannot be read, or lacks what the keys depend on."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A quantization method.

    Attributes:
        name: The checkpoint's `quant_method`, None for none.
        scheme: As in `MoELayer`.
        group_size: Elements per scale, -1 for none.
        has_zero_points: Whether the weights have zero points.
        block: Rows and columns of a weight that share a scale, None for none.
        activation_scale: `block`, `token`, `tensor`, empty for none.
        kv_cache: What the KV cache was calibrated for: `FP8`, `NVFP4`, empty for nothing.
    """

    name: str | None = None
    scheme: str = ""
    group_size: int = -1
    has_zero_points: bool = False
    block: tuple[int, int] | None = None
    activation_scale: str = ""
    kv_cache: str = ""

    def of_experts(self, hidden_size: int, intermediate_size: int, *, is_divided: bool) -> dict[str, Any]:
        """The fields of `MoELayer` that this method decides for experts of one size on a rank.

        Args:
            hidden_size: Of the model.
            intermediate_size: Of one expert on this rank.
            is_divided: Whether each expert is divided among ranks.
        """
        block_n, block_k = self._block(hidden_size, intermediate_size, is_divided=is_divided)
        return {
            "scheme": self.scheme,
            "group_size": self._group(hidden_size, intermediate_size),
            "has_zero_points": self.has_zero_points,
            "block_n": block_n,
            "block_k": block_k,
            "activation_scale": self.activation_scale,
        }

    def _group(self, hidden_size: int, intermediate_size: int) -> int:
        """Halved until they divide both sizes, as vLLM does it: the scales are repeated when they are loaded."""
        group = self.group_size
        while group > _SMALLEST_GROUP and (intermediate_size % group or hidden_size % group):
            group //= 2
        if group > 0 and (intermediate_size % group or hidden_size % group):
            raise ModelConfigError(
                f"no group of {_SMALLEST_GROUP} or more divides experts of {hidden_size} x {intermediate_size} elements",
                "vLLM refuses this, too: divide the experts among fewer ranks, or use expert parallelism",
            )
        return group

    def _block(self, hidden_size: int, intermediate_size: int, *, is_divided: bool) -> tuple[int, int]:
        """Refined where a rank's share would cut one and the finer ones are not too small, as vLLM does it."""
        if self.block is None:
            return 0, 0
        rows, columns = self.block
        if intermediate_size % rows == 0 and (not is_divided or intermediate_size % columns == 0):
            return rows, columns
        finer = math.gcd(rows, columns, intermediate_size, hidden_size)
        return (finer, finer) if finer >= _SMALLEST_BLOCK else (rows, columns)


def read(document: Mapping[str, Any] | None) -> Method:
    """The method of a `quantization_config`; one that is not known here keeps its name as its scheme."""
    if not document:
        return Method()
    name = str(document.get("quant_method") or document.get("quant_algo") or "unnamed").lower()
    reader = _READERS.get(name)
    return reader(name, document) if reader else Method(name, scheme=name)


def _gptq(name: str, document: Mapping[str, Any]) -> Method:
    return _weight_only(name, document, has_zero_points=not document.get("sym", True))


def _awq(name: str, document: Mapping[str, Any]) -> Method:
    return _weight_only(name, document, has_zero_points=bool(document.get("zero_point", True)))


def _weight_only(name: str, document: Mapping[str, Any], *, has_zero_points: bool) -> Method:
    bits = document.get("bits") or document.get("w_bit") or 0
    group = document.get("group_size") or document.get("q_group_size") or -1
    return Method(name, _WEIGHT_ONLY.get(bits, f"int{bits}"), group, has_zero_points)


def _fp8(name: str, document: Mapping[str, Any]) -> Method:
    block = document.get("weight_block_size")
    if block:
        return Method(name, "fp8_w8a8", block=(block[0], block[1]), activation_scale="block")
    return Method(name, "fp8_w8a8", activation_scale="tensor")


def _modelopt(name: str, document: Mapping[str, Any]) -> Method:
    inner = {**document, **(document.get("quantization") or {})}
    algorithm = str(inner.get("quant_algo") or "").upper()
    cache = str(inner.get("kv_cache_quant_algo") or "").upper() or _scheme_of_cache(inner)
    if algorithm == "FP8":
        return Method(name, "fp8_w8a8", activation_scale="tensor", kv_cache=cache)
    return Method(name, scheme=algorithm.lower() or name, kv_cache=cache)


def _compressed_tensors(name: str, document: Mapping[str, Any]) -> Method:
    group = next(iter((document.get("config_groups") or {}).values()), {})
    weights, activations = group.get("weights") or {}, group.get("input_activations")
    cache = _scheme_of_cache(document)
    bits, kind = weights.get("num_bits"), weights.get("type")
    if kind == "int" and not activations:
        size = weights.get("group_size") or -1
        return Method(
            name, _WEIGHT_ONLY.get(bits, f"int{bits}"), size, not weights.get("symmetric", True), kv_cache=cache
        )
    if kind == "float" and bits == 8 and activations:
        block = weights.get("block_structure")
        scale = "block" if block else {"token": "token"}.get(activations.get("strategy"), "tensor")
        return Method(name, "fp8_w8a8", block=tuple(block) if block else None, activation_scale=scale, kv_cache=cache)
    return Method(name, scheme=str(document.get("format") or name), kv_cache=cache)


def _scheme_of_cache(document: Mapping[str, Any]) -> str:
    scheme = document.get("kv_cache_scheme") or {}
    return "FP8" if scheme.get("type") == "float" and scheme.get("num_bits") == 8 else ""


_READERS = {
    "gptq": _gptq,
    "awq": _awq,
    "fp8": _fp8,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "compressed-tensors": _compressed_tensors,
}
