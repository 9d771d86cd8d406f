"""MoE layers as their two GEMMs see them: which layers there are, and the sizes that reach a launch."""

import dataclasses
from collections.abc import Collection
from typing import Any

from jitwarm import IntClass, MoELayer, Unresolved, WarmupConfig, current_target
from jitwarm_vllm import models

MODULE = "vllm.model_executor.layers.fused_moe.fused_moe"
# vLLM's classes whose `apply` launches these kernels for every number of tokens; empty: not chosen yet.
_EXPERTS = ("", "TritonExperts", "TritonWNA16Experts")
TILE = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "SPLIT_K")
_NAIVE_FACTOR = 4  # vLLM skips the sorting of tokens where so many times the routed ones are no more than the experts


@dataclasses.dataclass(frozen=True)
class Gemm:
    """One of the two GEMMs of a layer.

    Attributes:
        n: Rows of the weight, columns of the output.
        k: Columns of the weight and of the input, before packing.
        top_k: Rows of output per row of input.
    """

    n: int
    k: int
    top_k: int


def gemm(layer: MoELayer, *, is_down: bool) -> Gemm:
    """The gate/up projection, or the down projection, whose input has a row for each expert of a token."""
    if is_down:
        return Gemm(n=layer.hidden_size, k=layer.intermediate_size, top_k=1)
    return Gemm(n=first_rows(layer), k=layer.hidden_size, top_k=layer.top_k)


def first_rows(layer: MoELayer) -> int:
    """Rows of the first weight: gate and up lie in one."""
    return layer.intermediate_size * (2 if layer.is_gated else 1)


def weight_shapes(layer: MoELayer, per_byte: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Shapes of the two stacked weights, with so many elements in each."""
    n = layer.n_local_experts
    first = (n, first_rows(layer), layer.hidden_size // per_byte)
    return first, (n, layer.hidden_size, layer.intermediate_size // per_byte)


def has_expert_map(layer: MoELayer) -> bool:
    """Whether vLLM maps expert numbers to local ones: as soon as experts are divided among ranks.

    It maps after the sorting, which counts all experts. AMD's AITER kernels take a mask instead; these kernels do not.
    """
    return layer.n_local_experts < layer.n_experts


def launched_length(n_routed: int, n_experts: int, block_m: int) -> int:
    """Length of the sorted token numbers (`EM`), where each expert's are padded to whole blocks.

    A launch with few rows is told of no more than a block per routed token. The sorting has the same bound, and it is the
    smaller one for fewer routed tokens than experts only.

    Args:
        n_routed: Tokens times experts per token.
        n_experts: That the sorting counts.
        block_m: Rows of a tile.
    """
    if n_routed < n_experts:
        return n_routed * block_m
    return n_routed + n_experts * (block_m - 1)


def n_aligned(layer: MoELayer) -> int:
    """Experts that the sorting counts."""
    return layer.n_experts if has_expert_map(layer) else layer.n_local_experts


def weights_are_multiplied(layer: MoELayer, *, is_down: bool, is_functional: bool) -> bool:
    """Whether this GEMM multiplies by the router's weights: once per layer, or before it."""
    return not layer.router_weight_on_input if is_down else is_functional and layer.router_weight_on_input


def tile(config: dict[str, Any]) -> dict[str, int]:
    """The tile of a tuned or default configuration, as key fields."""
    return {name.lower(): config[name] for name in TILE}


def options(config: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What else a configuration holds: compile options, in the order in which vLLM passes them on."""
    return tuple((name, value) for name, value in config.items() if name not in TILE)


def is_unsorted(n_routed: int, layer: MoELayer) -> bool:
    """Whether vLLM launches one block per token and expert, without sorting."""
    return not has_expert_map(layer) and n_routed * _NAIVE_FACTOR <= layer.n_experts


def layers(config: WarmupConfig, schemes: Collection[str]) -> list[MoELayer]:
    """The layers of these schemes that run on vLLM's Triton experts, each shape once.

    Raises:
        ModelConfigError: The settings, or the model's `config.json`, are wrong.
    """
    chosen = models.settings(config)
    if chosen.moe_backend not in ("auto", "triton"):
        return []
    found = models.configuration(config).moe
    return [layer for layer in dict.fromkeys(found) if layer.experts in _EXPERTS and _scheme(layer) in schemes]


def _scheme(layer: MoELayer) -> str:
    """Of a quantized layer of which no more than the method is known, that method's name."""
    return layer.scheme or layer.quantization or ""


def n_tokens(config: WarmupConfig) -> int:
    """Tokens in one call of a layer, at most: data-parallel ranks bring theirs together."""
    return config.max_num_batched_tokens * config.dp_size


def require_cuda() -> None:
    """Refuse what was not derived.

    Raises:
        Unresolved: The target is another kind of GPU.
    """
    target = current_target()
    if target.kind != "cuda":
        raise Unresolved(
            f"the keys of vLLM's fused MoE kernels are not derived for {target}",
            "on AMD they also depend on the size of each storage, and vLLM prefers AITER's kernels there",
        )


def class_of(kernel: Any, name: str, value: int) -> IntClass:
    """What Triton distinguishes of an argument, as far as the kernel lets it: see `do_not_specialize` of `triton.jit`."""
    if name in unspecialized(kernel):
        return IntClass.OTHER if -(2**31) <= value < 2**31 else IntClass.OTHER_I64
    return IntClass.of(value)


def unspecialized(kernel: Any) -> frozenset[str]:
    """The parameters of which Triton looks at the width alone."""
    return frozenset(parameter.name for parameter in kernel.params if parameter.do_not_specialize)
