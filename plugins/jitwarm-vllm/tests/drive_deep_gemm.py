"""Run over a described device: which of DeepGEMM's kernels vLLM's own layers launch.

    python drive_deep_gemm.py TARGET CASES WHEEL_DIRECTORY IMPORTS_DIRECTORY

`CASES` is a JSON list of GEMMs with the numbers of tokens to drive. vLLM's own linear kernel prepares weights and is applied, and
its own experts class is applied, on tensors whose content is never looked at. What is no kernel of DeepGEMM (quantization of
activations, the permutation of tokens) is launched into nothing; the tensors that it would fill are vLLM's. Prints for each case
the entries of DeepGEMM's cache that the launches used, those of the preparation apart.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

TARGET, CASES, *WHEEL = sys.argv[1:]
sys.path.insert(0, WHEEL[0])
sys.path.append(WHEEL[1])

import torch  # noqa: E402

from jitwarm import Target  # noqa: E402
from jitwarm_vllm import real  # noqa: E402
from jitwarm_vllm.deep_gemm_layers import linear_gemms_of  # noqa: E402
from jitwarm_vllm.platform import answering_for  # noqa: E402

_FP8, _BLOCK = torch.float8_e4m3fn, 128
MOE = "vllm.model_executor.layers.fused_moe"
_files = (ctypes.c_char_p * 64)()


def launched() -> set[str]:
    """Entries that were launched since this was last asked."""
    n = ctypes.CDLL(os.environ["DESCRIBED_DEVICE"]).described_launches(_files, 64)
    return {Path(os.fsdecode(_files[i])).parent.name for i in range(n)}


def weights(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """FP8 weights with a scale for each block, as a checkpoint has them."""
    *groups, n, k = shape
    return torch.zeros(shape, dtype=_FP8), torch.ones((*groups, -(-n // _BLOCK), k // _BLOCK))


class Linear:
    """vLLM's linear kernel with a layer whose weights it has prepared."""

    def __init__(self, gemm: dict) -> None:
        linear = real.module("vllm.model_executor.kernels.linear.scaled_mm.deep_gemm")
        keys = real.module("vllm.model_executor.layers.quantization.utils.quant_utils")
        self.layer = torch.nn.Module()
        weight, scale = weights(gemm["n"], gemm["k"])
        self.layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.layer.weight_scale_inv = torch.nn.Parameter(scale, requires_grad=False)
        self.layer.weight_block_size = [_BLOCK, _BLOCK]
        self.layer.input_scale = None
        self.kernel = linear.DeepGemmFp8BlockScaledMMKernel(
            linear.FP8ScaledMMLinearLayerConfig(
                weight_quant_key=keys.kFp8Static128BlockSym,
                activation_quant_key=keys.kFp8Dynamic128Sym,
                weight_shape=(gemm["n"], gemm["k"]),
                input_dtype=torch.bfloat16,
                out_dtype=torch.bfloat16,
            )
        )
        self.kernel.process_weights_after_loading(self.layer)
        self.k = gemm["k"]

    def apply(self, tokens: int) -> None:
        """As a layer's forward pass does."""
        self.kernel.apply_weights(self.layer, torch.empty((tokens, self.k), dtype=torch.bfloat16))

    def found(self) -> list[int]:
        """What the declaration takes the layer for."""
        [gemm] = linear_gemms_of(self.layer, 8192)
        return [gemm.n, gemm.k]


class Experts:
    """vLLM's experts class, with weights that vLLM has prepared."""

    def __init__(self, gemm: dict) -> None:
        module = real.module(f"{MOE}.experts.deep_gemm_moe")
        fp8 = real.module("vllm.model_executor.layers.quantization.utils.fp8_utils")
        config = real.module(f"{MOE}.config")
        self.activation = real.module(f"{MOE}.activation").MoEActivation.SILU
        # A case is one of the layer's two GEMMs; the other one has the same sizes.
        inner, hidden = (gemm["n"] // 2, gemm["k"]) if gemm["is_first"] else (gemm["k"], gemm["n"])
        self.hidden, self.inner, self.groups, self.top_k = hidden, inner, gemm["groups"], gemm["top_k"]
        (w1, s1), (w2, s2) = weights(gemm["groups"], 2 * inner, hidden), weights(gemm["groups"], hidden, inner)
        self.w1, self.w2, s1, s2 = fp8.prepare_fp8_moe_layer_for_deepgemm(w1, w2, s1, s2, (_BLOCK, _BLOCK))
        quant = config.fp8_w8a8_moe_quant_config(w1_scale=s1, w2_scale=s2, block_shape=[_BLOCK, _BLOCK])
        moe = config.FusedMoEConfig(
            num_experts=self.groups,
            experts_per_token=self.top_k,
            hidden_dim=hidden,
            intermediate_size=inner,
            num_local_experts=self.groups,
            num_logical_experts=self.groups,
            activation=self.activation,
            device="cpu",
            routing_method=config.RoutingMethodType.Default,
            moe_parallel_config=config.FusedMoEParallelConfig.make_no_parallel(),
            in_dtype=torch.bfloat16,
        )
        self.experts = module.DeepGemmExperts(moe, quant)

    def apply(self, tokens: int) -> None:
        """As the layer does, after its input was quantized."""
        experts, k = self.experts, self.hidden
        shapes = (tokens, 2 * self.inner, k, self.top_k, self.groups, self.groups, None, self.activation)
        first, second, _ = experts.workspace_shapes(*shapes)
        experts.apply(
            output=torch.empty((tokens, k), dtype=torch.bfloat16),
            hidden_states=torch.empty((tokens, k), dtype=_FP8),
            w1=self.w1,
            w2=self.w2,
            topk_weights=torch.empty((tokens, self.top_k)),
            topk_ids=torch.empty((tokens, self.top_k), dtype=torch.int32),
            activation=self.activation,
            global_num_experts=self.groups,
            expert_map=None,
            a1q_scale=torch.empty((tokens, k // _BLOCK)),
            a2_scale=None,
            workspace13=torch.empty(first, dtype=torch.bfloat16),
            workspace2=torch.empty(second, dtype=torch.bfloat16),
            expert_tokens_meta=None,
            apply_router_weight_on_input=False,
        )

    def found(self) -> None:
        """Experts are found by their class, which a configuration names."""


def configured(vllm_config):
    """With the operation that vLLM switches on where weights have blocks, whatever the compilation mode."""
    compilation = vllm_config.CompilationConfig(custom_ops=["none", "+quant_fp8"])
    return vllm_config.VllmConfig(compilation_config=compilation)


def into_nothing() -> None:
    """Launches of Triton, and of vLLM's own CUDA operations, that are none of DeepGEMM's."""
    from triton.runtime.jit import JITFunction

    JITFunction.run = lambda *_, **__: None
    library = torch.library.Library("_C", "FRAGMENT")
    arguments = "Tensor x, Tensor(a!) q, Tensor(b!) s, int group, float eps, float lo, float hi"
    library.define(f"per_token_group_fp8_quant({arguments}, bool e8m0, bool columns, bool aligned) -> ()")
    library.define(f"per_token_group_fp8_quant_packed({arguments}) -> ()")
    for name in ("per_token_group_fp8_quant", "per_token_group_fp8_quant_packed"):
        library.impl(name, lambda *_: None, "CompositeExplicitAutograd")
    into_nothing.library = library  # it ends with this object


def main() -> None:
    into_nothing()
    target, driven = Target.parse(TARGET), []
    vllm_config = real.module("vllm.config")
    # Imported before the platform answers for the target: what they ask when they are imported is of other kernels.
    for name in ("vllm.model_executor.kernels.linear.scaled_mm.deep_gemm", f"{MOE}.experts.deep_gemm_moe"):
        real.module(name)
    with answering_for(target), vllm_config.set_current_vllm_config(configured(vllm_config)):
        for case in json.loads(CASES):
            layer = {"linear": Linear, "experts": Experts}[case["gemm"]["call"]](case["gemm"])
            prepared, used = launched(), set()
            for tokens in case["tokens"]:
                layer.apply(tokens)
                used |= launched()
            driven.append({"prepared": sorted(prepared), "used": sorted(used), "found": layer.found()})
    sys.stdout.write(json.dumps(driven) + "\n")


if __name__ == "__main__":
    main()
