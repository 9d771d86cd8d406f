"""Unquantized experts and those with 8-bit floats: `fused_moe_kernel`."""

from dataclasses import dataclass
from typing import Any

from jitwarm import Choices, IntClass, IntRange, MoELayer, TensorSpec, WarmupConfig, current_target, trace_dispatch
from jitwarm_vllm import models
from jitwarm_vllm.declaring import VllmKernel, entries
from jitwarm_vllm.moe_layers import (
    MODULE,
    Gemm,
    class_of,
    gemm,
    is_unsorted,
    launched_length,
    layers,
    n_aligned,
    n_tokens,
    options,
    require_cuda,
    tile,
    weight_shapes,
    weights_are_multiplied,
)
from jitwarm_vllm.moe_scales import Scales, scales
from jitwarm_vllm.platform import answering_for

_FP8 = "fp8_w8a8"
_FP8_DTYPE = "float8_e4m3fn"


class FusedMoE(VllmKernel):
    """Both GEMMs of each layer, for every number of tokens."""

    name = "fused_moe_kernel"
    place = (MODULE, "fused_moe_kernel")
    fixed = {  # noqa: RUF012 - never mutated
        "stride_ak": 1,
        "stride_bk": 1,
        "stride_cn": 1,
        "use_int8_w8a8": False,
        "use_int8_w8a16": False,
    }
    derived = {"naive_block_assignment": ("is_unsorted",)}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside.

        `dtype` is that of the output and of a bias, `operand_dtype` that of input and weights. `options` are in the order of
        the configuration that vLLM takes.
        """

        dtype: str
        operand_dtype: str
        compute_type: str
        has_topk_weights: bool
        is_unsorted: bool
        n: IntClass
        k: IntClass
        em: IntClass
        num_valid_tokens: IntClass
        stride_am: IntClass
        stride_be: IntClass
        stride_bn: IntClass
        stride_cm: IntClass
        stride_asm: IntClass
        stride_ask: IntClass
        stride_bse: IntClass
        stride_bsk: IntClass
        stride_bsn: IntClass
        stride_bbe: IntClass
        stride_bbn: IntClass
        group_n: int
        group_k: int
        block_size_m: int
        block_size_n: int
        block_size_k: int
        group_size_m: int
        split_k: int
        mul_routed_weight: bool
        top_k: int
        use_fp8_w8a8: bool
        per_channel_quant: bool
        has_bias: bool
        swap_ab: bool
        use_td: bool
        options: tuple[tuple[str, int], ...]

    def dispatch(
        self, *, M: int, is_down: bool, layer: MoELayer, dtype: str, scale: tuple[Scales, Scales], is_functional: bool
    ) -> CompileKey:
        """What `invoke_fused_moe_triton_kernel` launches.

        Args:
            M: Tokens in the call of the layer.
            is_down: The second GEMM.
            layer: The layer.
            dtype: Of the activations.
            scale: Strides of the scales of both GEMMs.
            is_functional: Called through `fused_experts`, which hands the router's weights to both GEMMs.
        """
        one = gemm(layer, is_down=is_down)
        is_fp8 = layer.scheme == _FP8
        n_routed = M * layer.top_k
        config = self._config(M, layer, dtype)
        block_m = config["BLOCK_SIZE_M"]
        unsorted = is_unsorted(n_routed, layer)
        em = n_routed * block_m if unsorted else launched_length(n_routed, n_aligned(layer), block_m)
        return self.CompileKey(
            dtype=dtype,
            operand_dtype=_FP8_DTYPE if is_fp8 else dtype,
            # An 8-bit input does not say what the layer's own dtype was, so vLLM's layers take bfloat16.
            compute_type="bfloat16" if is_fp8 and not is_functional else dtype,
            has_topk_weights=is_down or is_functional,
            is_unsorted=unsorted,
            em=class_of(self.kernel, "EM", em),
            num_valid_tokens=class_of(self.kernel, "num_valid_tokens", n_routed),
            **_sizes(layer, one),
            **scale[is_down].fields(),
            group_n=layer.block_n,
            group_k=layer.block_k,
            **tile(config),
            mul_routed_weight=weights_are_multiplied(layer, is_down=is_down, is_functional=is_functional),
            top_k=one.top_k,
            use_fp8_w8a8=is_fp8,
            per_channel_quant=layer.activation_scale == "token",
            has_bias=layer.has_bias,
            swap_ab=is_fp8 and self._swaps(block_m, config["BLOCK_SIZE_N"]),
            use_td=not is_fp8 and self._uses_descriptors(one.k, config["BLOCK_SIZE_K"]),
            options=options(config),
        )

    def _config(self, M: int, layer: MoELayer, dtype: str) -> dict[str, Any]:
        """Tile and options, by vLLM's own look-up."""
        is_fp8 = layer.scheme == _FP8
        block = [layer.block_n, layer.block_k] if layer.block_k else None
        name = _FP8 if is_fp8 else "float32" if dtype == "float32" else None
        config = self.module.try_get_optimal_moe_config(
            *weight_shapes(layer, 1), layer.top_k, name, M, block_shape=block
        )
        block_k = min(config["BLOCK_SIZE_K"], layer.block_n, layer.block_k) if block else config["BLOCK_SIZE_K"]
        return {**config, "SPLIT_K": 1, "BLOCK_SIZE_K": block_k}

    def _swaps(self, block_m: int, block_n: int) -> bool:
        """Whether vLLM has this GPU multiply the transposed operands; older versions never do."""
        decide = getattr(self.module, "enable_swap_ab", None)
        return decide is not None and decide(block_m, block_n)

    def _uses_descriptors(self, k: int, block_k: int) -> bool:
        """Whether vLLM was told to load through tensor descriptors, and can; older versions never do."""
        decide = getattr(self.module, "resolve_moe_use_td", None)
        return decide is not None and bool(decide()) and k % block_k == 0

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether there is such a layer."""
        return bool(layers(config, ("", _FP8)))

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """Both GEMMs of each layer, for each number of tokens that a step can have."""
        found = layers(config, ("", _FP8))
        if not found:
            return []
        require_cuda()
        chosen = models.settings(config)
        dtype = models.configuration(config).dtype
        with answering_for(current_target(), chosen.device_name):
            return [key for layer in found for key in self._keys(layer, n_tokens(config), dtype, chosen.moe_route)]

    def _keys(self, layer: MoELayer, most: int, dtype: str, route: str) -> list[CompileKey]:
        return trace_dispatch(
            self.dispatch,
            M=IntRange(1, most + 1),
            is_down=Choices(False, True),
            layer=layer,
            dtype=dtype,
            scale=scales(self.module, layer),
            is_functional=route == "functional",
        )

    def launch_options(self, key: CompileKey) -> dict[str, Any]:
        """Those of the configuration."""
        return dict(key.options)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What vLLM passes: input [rows, k], weights [experts, n, k], output [tokens, top_k, n]."""
        tokens = TensorSpec("int32", ("tokens",))
        scale = TensorSpec("float32", ("scales",)) if key.use_fp8_w8a8 else None
        return entries(
            self,
            {
                **self.named(key),
                "a_ptr": TensorSpec(key.operand_dtype, ("rows", "k")),
                "b_ptr": TensorSpec(key.operand_dtype, ("experts", "n", "k")),
                "c_ptr": TensorSpec(key.dtype, ("tokens", "top_k", "n")),
                "b_bias_ptr": TensorSpec(key.dtype, ("experts", "n")) if key.has_bias else None,
                "a_scale_ptr": scale,
                "b_scale_ptr": scale,
                "topk_weights_ptr": TensorSpec("float32", ("tokens", "top_k")) if key.has_topk_weights else None,
                "sorted_token_ids_ptr": None if key.is_unsorted else tokens,
                "expert_ids_ptr": tokens,
                "num_tokens_post_padded_ptr": tokens,
                "naive_block_assignment": key.is_unsorted,
                "compute_type": getattr(self.module.tl, key.compute_type),
            },
        )


def _sizes(layer: MoELayer, one: Gemm) -> dict[str, IntClass]:
    """Sizes and strides of contiguous tensors: weights [experts, n, k], bias [experts, n]."""
    sizes = {
        "n": one.n,
        "k": one.k,
        "stride_am": one.k,
        "stride_be": one.n * one.k,
        "stride_bn": one.k,
        "stride_cm": one.n,
        "stride_bbe": one.n if layer.has_bias else 0,
        "stride_bbn": 1 if layer.has_bias else 0,
    }
    return {name: IntClass.of(size) for name, size in sizes.items()}
