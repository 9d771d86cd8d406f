"""Experts with 4- or 8-bit weights and 16-bit activations: `fused_moe_kernel_gptq_awq`."""

from dataclasses import dataclass
from typing import Any

from jitwarm import Choices, IntClass, IntRange, MoELayer, TensorSpec, WarmupConfig, current_target, trace_dispatch
from jitwarm_vllm import models
from jitwarm_vllm.declaring import VllmKernel
from jitwarm_vllm.moe_layers import (
    MODULE,
    Gemm,
    class_of,
    gemm,
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
from jitwarm_vllm.platform import answering_for

_INT4, _INT8 = "int4_w4a16", "int8_w8a16"


class FusedMoEWNA16(VllmKernel):
    """Both GEMMs of each layer, for every number of tokens."""

    name = "fused_moe_kernel_gptq_awq"
    place = (MODULE, "fused_moe_kernel_gptq_awq")
    fixed = {"stride_ak": 1, "stride_bk": 1, "stride_cn": 1, "stride_bsk": 1}  # noqa: RUF012 - never mutated
    derived = {  # noqa: RUF012 - never mutated
        "stride_bzk": ("has_zp",),
        "block_k_diviable": ("k", "block_size_k"),
        "compute_type": ("dtype",),
        "use_int8_w8a16": ("use_int4_w4a16",),
    }

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside. `options` are those that the tuned configuration has."""

        dtype: str
        has_topk_weights: bool
        n: int
        k: int
        em: IntClass
        num_valid_tokens: IntClass
        stride_am: IntClass
        stride_be: IntClass
        stride_bn: IntClass
        stride_cm: IntClass
        stride_bse: IntClass
        stride_bsn: IntClass
        stride_bze: IntClass
        stride_bzn: IntClass
        group_size: int
        block_size_m: int
        block_size_n: int
        block_size_k: int
        group_size_m: int
        split_k: int
        mul_routed_weight: bool
        top_k: int
        has_zp: bool
        use_int4_w4a16: bool
        options: tuple[tuple[str, int], ...]

    def dispatch(self, *, M: int, is_down: bool, layer: MoELayer, dtype: str, is_functional: bool) -> CompileKey:
        """What `invoke_fused_moe_wna16_triton_kernel` launches.

        Args:
            M: Tokens in the call of the layer.
            is_down: The second GEMM.
            layer: The layer.
            dtype: Of the activations.
            is_functional: Called through `fused_experts`, which hands the router's weights to both GEMMs.
        """
        one = gemm(layer, is_down=is_down)
        n_routed = M * layer.top_k
        config = self._config(M, layer, one)
        block_m = config["BLOCK_SIZE_M"]
        em = launched_length(n_routed, n_aligned(layer), block_m)
        return self.CompileKey(
            dtype=dtype,
            has_topk_weights=is_down or is_functional,
            n=one.n,
            k=one.k,
            em=class_of(self.kernel, "EM", em),
            num_valid_tokens=class_of(self.kernel, "num_valid_tokens", n_routed),
            **_strides(layer, one),
            group_size=layer.group_size,
            **tile(config),
            mul_routed_weight=weights_are_multiplied(layer, is_down=is_down, is_functional=is_functional),
            top_k=one.top_k,
            has_zp=layer.has_zero_points,
            use_int4_w4a16=layer.scheme == _INT4,
            options=options(config),
        )

    def _config(self, M: int, layer: MoELayer, one: Gemm) -> dict[str, Any]:
        """Tile and options, by vLLM's own look-up."""
        config = {
            "SPLIT_K": 1,
            **self.module.try_get_optimal_moe_config(
                *weight_shapes(layer, _per_byte(layer)),
                layer.top_k,
                layer.scheme,
                M,
                block_shape=[0, layer.group_size],
            ),
        }
        rest = self.module.get_moe_wna16_block_config(
            config=config,
            use_moe_wna16_cuda=False,
            num_valid_tokens=M * layer.top_k,
            size_k=one.k,
            size_n=one.n,
            num_experts=one.n,
            group_size=layer.group_size,
            real_top_k=one.top_k,
            block_size_m=config["BLOCK_SIZE_M"],
        )
        return {**config, **rest}

    def runs_on_triton(self, *, M: int, layer: MoELayer, is_functional: bool) -> bool:
        """Whether this kernel is launched at all: `fused_experts` has a CUDA kernel for few tokens per expert.

        Both GEMMs ask with the same number: the second has `top_k` times the rows and one output row for each.
        """
        return not is_functional or not self.module.should_moe_wna16_use_cuda(
            num_valid_tokens=M * layer.top_k,
            group_size=layer.group_size,
            num_experts=layer.n_local_experts,
            bit=8 // _per_byte(layer),
        )

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether there is such a layer."""
        return bool(_layers(config))

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """Both GEMMs of each layer, for each number of tokens that a step can have."""
        found = _layers(config)
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
            when=self.runs_on_triton,
            M=IntRange(1, most + 1),
            is_down=Choices(False, True),
            layer=layer,
            dtype=dtype,
            is_functional=route == "functional",
        )

    def launch_options(self, key: CompileKey) -> dict[str, Any]:
        """Those of the configuration; the default ones have none."""
        return dict(key.options)

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What vLLM passes: weights of [experts, n, k], scales and zero points of [experts, n, groups]."""
        values, integers = TensorSpec(key.dtype, ("rows", "columns")), TensorSpec("int32", ("tokens",))
        return {
            **self.named(key),
            "a_ptr": values,
            "b_ptr": TensorSpec("uint8", ("experts", "n", "k")),
            "c_ptr": values,
            "b_scale_ptr": values,
            "b_zp_ptr": TensorSpec("uint8", ("experts", "n", "groups")) if key.has_zp else None,
            "topk_weights_ptr": TensorSpec("float32", ("tokens", "top_k")) if key.has_topk_weights else None,
            "sorted_token_ids_ptr": integers,
            "expert_ids_ptr": integers,
            "num_tokens_post_padded_ptr": integers,
            "stride_bzk": int(key.has_zp),
            "block_k_diviable": key.k % key.block_size_k == 0,
            "compute_type": getattr(self.module.tl, key.dtype),
            "use_int8_w8a16": not key.use_int4_w4a16,
        }


def _layers(config: WarmupConfig) -> list[MoELayer]:
    """With weights in groups: vLLM has no other for this kernel."""
    return [layer for layer in layers(config, (_INT4, _INT8)) if layer.group_size > 0]


def _per_byte(layer: MoELayer) -> int:
    return 2 if layer.scheme == _INT4 else 1


def _strides(layer: MoELayer, one: Gemm) -> dict[str, IntClass]:
    """Of contiguous tensors: weights [experts, n, k / per byte], scales [experts, n, groups], zero points packed along n."""
    per_byte, n_groups = _per_byte(layer), one.k // layer.group_size
    zero_points = n_groups if layer.has_zero_points else 0
    strides = {
        "stride_am": one.k,
        "stride_be": one.n * one.k // per_byte,
        "stride_bn": one.k // per_byte,
        "stride_cm": one.n,
        "stride_bse": one.n * n_groups,
        "stride_bsn": n_groups,
        "stride_bze": one.n // per_byte * zero_points,
        "stride_bzn": zero_points,
    }
    return {name: IntClass.of(stride) for name, stride in strides.items()}
