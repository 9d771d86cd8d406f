"""Run in a process of its own: what vLLM's MoE host code launches for every number of tokens, and what is declared.

    python drive_moe.py TARGET some|every [WHEEL_DIRECTORY IMPORTS_DIRECTORY]

vLLM's own experts classes and `fused_experts_impl` run on tensors without memory, up to the launch of a Triton kernel, which is
noted instead: the text under which Triton would file it. `every` is every number up to 8,192; `some` is every small one, where
tiles change, the largest, and a thousand at random. What is no Triton kernel (sorting of tokens, activation, quantization
of activations) is a stand-in that gives the right shapes. Prints one JSON document.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

TARGET, HOW_MANY, *WHEEL = sys.argv[1:]
if WHEEL:
    sys.path.insert(0, WHEEL[0])
    sys.path.append(WHEEL[1])
TUNED = {
    # As vLLM's own files are named; their experts are on a GPU of this name.
    "E=128,N=768,device_name=tuned_GPU.json": {
        "1": {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 128, "GROUP_SIZE_M": 1, "num_warps": 4, "num_stages": 4},
        "4": {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 128, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 1, "num_warps": 4, "num_ctas": 1,
              "num_stages": 3},
        "24": {"BLOCK_SIZE_M": 32, "BLOCK_SIZE_N": 128, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 16, "num_warps": 8, "num_stages": 3},
        "512": {"BLOCK_SIZE_M": 64, "BLOCK_SIZE_N": 128, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 16, "num_warps": 8, "num_stages": 3},
    },
    "E=8,N=14336,device_name=tuned_GPU,dtype=int4_w4a16.json": {
        "1": {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 32, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 1, "SPLIT_K": 1, "num_warps": 4,
              "num_stages": 3},
        "64": {"BLOCK_SIZE_M": 64, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 1, "SPLIT_K": 1, "num_warps": 8,
               "num_stages": 2},
    },
}  # fmt: skip
FOLDER = tempfile.TemporaryDirectory()
for name, configs in TUNED.items():
    (Path(FOLDER.name) / name).write_text(json.dumps(configs))
os.environ["VLLM_TUNED_CONFIG_FOLDER"] = FOLDER.name

import torch  # noqa: E402
from moe_kinds import KINDS, Kind  # noqa: E402

from jitwarm import Target, WarmupConfig, encode_key  # noqa: E402
from jitwarm.backends._triton import internals  # noqa: E402
from jitwarm.backends._triton.adapter import TritonBackend  # noqa: E402
from jitwarm.contract.backend import TargetScope  # noqa: E402
from jitwarm_vllm import moe, real  # noqa: E402
from jitwarm_vllm.moe_wna16 import FusedMoEWNA16  # noqa: E402
from jitwarm_vllm.platform import answering_for  # noqa: E402

MOST_TOKENS, SMALL_TOKENS, N_RANDOM = 8192, 640, 1000
_PACKAGE = "vllm.model_executor.layers.fused_moe"


def meta(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


class Notes:
    """Takes the place of `JITFunction.run`: kernel name -> texts under which Triton would file what was launched."""

    def __init__(self) -> None:
        self.texts: dict[str, set[str]] = {}
        self.n_launches = 0

    def __call__(self, function, *args, **keywords):
        """One launch."""
        names = [parameter.name for parameter in function.params]
        del keywords["grid"], keywords["warmup"]
        given = {**dict(zip(names, args, strict=False)), **keywords}
        arguments = {name: value for name, value in given.items() if name in names}
        options = {name: value for name, value in given.items() if name not in names}
        text = internals.in_process_key(function, arguments, options)
        self.texts.setdefault(function.fn.__name__, set()).add(text)
        self.n_launches += 1

    def method(self):
        """For a class: passes the object on."""

        def run(function, *args, **keywords):
            self(function, *args, **keywords)

        return run


class Driven:
    """One layer, whose weights have no memory."""

    def __init__(self, kind: Kind) -> None:
        layer = kind.layer
        self.kind, self.layer, self.dtype = kind, layer, getattr(torch, kind.dtype)
        rows = layer.intermediate_size * (2 if layer.is_gated else 1)
        self.w1, self.scale1, self.zeros1, self.bias1 = self._weight(rows, layer.hidden_size)
        self.w2, self.scale2, self.zeros2, self.bias2 = self._weight(layer.hidden_size, layer.intermediate_size)
        is_divided = layer.n_local_experts < layer.n_experts
        self.expert_map = meta(layer.n_experts, dtype=torch.int32) if is_divided else None

    def _weight(self, n: int, k: int):
        layer, e = self.layer, self.layer.n_local_experts
        bias = meta(e, n, dtype=self.dtype) if layer.has_bias else None
        if layer.scheme in ("int4_w4a16", "int8_w8a16"):
            pack, groups = 2 if layer.scheme == "int4_w4a16" else 1, k // layer.group_size
            zeros = meta(e, n // pack, groups, dtype=torch.uint8) if layer.has_zero_points else None
            return meta(e, n, k // pack, dtype=torch.uint8), meta(e, n, groups, dtype=self.dtype), zeros, bias
        if layer.scheme == "fp8_w8a8":
            blocks = (e, -(-n // (layer.block_n or n)), -(-k // (layer.block_k or k)))
            shape = {"block": blocks, "token": (e, n, 1), "tensor": (e,)}[layer.activation_scale]
            return meta(e, n, k, dtype=torch.float8_e4m3fn), meta(*shape, dtype=torch.float32), None, bias
        return meta(e, n, k, dtype=self.dtype), None, None, bias

    def block_shape(self):
        if self.layer.scheme.startswith("int"):
            return [0, self.layer.group_size]
        return [self.layer.block_n, self.layer.block_k] if self.layer.block_k else None

    def quantized(self, A: torch.Tensor, *_: object, **__: object):
        """Activations as vLLM quantizes them: values, and scales of the layer's kind."""
        if self.layer.scheme != "fp8_w8a8":
            return A, None
        rows, k = A.shape
        shape = {"block": (rows, k // (self.layer.block_k or k)), "token": (rows, 1), "tensor": (1,)}
        values = meta(rows, k, dtype=torch.float8_e4m3fn)
        return values, meta(*shape[self.layer.activation_scale], dtype=torch.float32)

    def quant_config(self, config):
        scales = {"w1_scale": self.scale1, "w2_scale": self.scale2, "block_shape": self.block_shape()}
        if self.layer.scheme.startswith("int"):
            make = getattr(config, f"{self.layer.scheme}_moe_quant_config")
            return make(**scales, w1_zp=self.zeros1, w2_zp=self.zeros2)
        if self.layer.scheme == "fp8_w8a8":
            per_token = self.layer.activation_scale == "token"
            return config.fp8_w8a8_moe_quant_config(**scales, per_act_token_quant=per_token, per_out_ch_quant=per_token)
        if self.layer.has_bias:
            return config.biased_moe_quant_config(self.bias1, self.bias2)
        return config.FUSED_MOE_UNQUANTIZED_CONFIG

    def through_layer(self, n_tokens: Iterable[int]) -> None:
        """`apply` of vLLM's own class."""
        triton_moe = real.module(f"{_PACKAGE}.experts.triton_moe")
        activation = real.module(f"{_PACKAGE}.activation")
        is_int = self.layer.scheme.startswith("int")
        experts_class = triton_moe.TritonWNA16Experts if is_int else triton_moe.TritonExperts
        experts = object.__new__(experts_class)
        config = self.quant_config(real.module(f"{_PACKAGE}.config"))
        stand_ins = {
            "quant_config": config,
            "quantization_emulation": False,
            "_lora_context": None,
            "moe_config": None,
            "activation_config": activation.ApplyMoEActivationConfig(),
            "activation": lambda *_, **__: None,
            "moe_sum": lambda *_, **__: None,
        }
        for name, value in stand_ins.items():
            setattr(experts, name, value)
        triton_moe.moe_kernel_quantize_input = self.quantized
        triton_moe.ops.silu_and_mul_per_block_quant = lambda tensor, **_: self.quantized(
            meta(tensor.shape[0], tensor.shape[1] // 2, dtype=self.dtype)
        )
        for m in n_tokens:
            self._apply(experts, activation.MoEActivation.SILU, m)

    def _apply(self, experts, activation, m: int) -> None:
        layer = self.layer
        hidden, scale = self.quantized(meta(m, layer.hidden_size, dtype=self.dtype))
        widest = max(layer.hidden_size, 2 * layer.intermediate_size)
        experts.apply(
            output=meta(m, layer.hidden_size, dtype=self.dtype),
            hidden_states=hidden,
            w1=self.w1,
            w2=self.w2,
            topk_weights=meta(m, layer.top_k, dtype=torch.float32),
            topk_ids=meta(m, layer.top_k, dtype=torch.int32),
            activation=activation,
            global_num_experts=layer.n_experts,
            expert_map=self.expert_map,
            a1q_scale=scale,
            a2_scale=None,
            workspace13=meta(m, layer.top_k, widest, dtype=self.dtype),
            workspace2=meta(m, layer.top_k, widest, dtype=self.dtype),
            expert_tokens_meta=None,
            apply_router_weight_on_input=layer.router_weight_on_input,
        )

    def through_function(self, n_tokens: Iterable[int]) -> None:
        """`fused_experts_impl`."""
        fused_moe = real.module(f"{_PACKAGE}.fused_moe")
        layer = self.layer
        fused_moe.moe_kernel_quantize_input = self.quantized
        fused_moe.apply_moe_activation = lambda *_, **__: None
        fused_moe.invoke_fused_moe_wna16_cuda_kernel = lambda *_, **__: None
        flags = {f"use_{layer.scheme}": True} if layer.scheme else {}
        for m in n_tokens:
            fused_moe.fused_experts_impl(
                meta(m, layer.hidden_size, dtype=self.dtype),
                self.w1,
                self.w2,
                meta(m, layer.top_k, dtype=torch.float32),
                meta(m, layer.top_k, dtype=torch.int32),
                apply_router_weight_on_input=layer.router_weight_on_input,
                per_channel_quant=layer.activation_scale == "token",
                global_num_experts=layer.n_experts,
                expert_map=self.expert_map,
                w1_scale=self.scale1,
                w2_scale=self.scale2,
                w1_zp=self.zeros1,
                w2_zp=self.zeros2,
                block_shape=self.block_shape(),
                w1_bias=self.bias1,
                w2_bias=self.bias2,
                **flags,
            )


def numbers_of_tokens() -> list[int]:
    """Those that are driven."""
    if HOW_MANY == "every":
        return list(range(1, MOST_TOKENS + 1))
    larger = random.Random(1).sample(range(SMALL_TOKENS, MOST_TOKENS), N_RANDOM)  # noqa: S311 - the same each time
    return [*range(1, SMALL_TOKENS), *larger, MOST_TOKENS]


def driven(kind: Kind, target: Target) -> Notes:
    """What the layer launches."""
    from triton.runtime.jit import JITFunction

    notes, layer = Notes(), Driven(kind)
    run, JITFunction.run = JITFunction.run, notes.method()
    try:
        with answering_for(target, kind.device_name):
            drive = layer.through_function if kind.route == "functional" else layer.through_layer
            drive(numbers_of_tokens())
    finally:
        JITFunction.run = run
    return notes


def declared(kernels, kind: Kind) -> dict[str, list]:
    """The same, as it is declared: kernel name -> keys."""
    settings = {"moe_route": kind.route, "device_name": kind.device_name}
    config = WarmupConfig(
        dtype=kind.dtype, max_num_batched_tokens=MOST_TOKENS, moe=(kind.layer,), extra={"vllm_kernels": settings}
    )
    return {kernel.name: kernel.get_warmup_keys(config) for kernel in kernels}


def compared(kernels, kind: Kind, target: Target) -> dict:
    """Counts, and what one side has and the other lacks."""
    started = time.perf_counter()
    keys = declared(kernels, kind)
    listed = time.perf_counter()
    notes = driven(kind, target)
    found: dict = {"seconds_to_list": listed - started, "seconds_to_drive": time.perf_counter() - listed}
    found |= {"n_launches": notes.n_launches, "kernels": {}}
    for kernel in kernels:
        asked = notes.texts.get(kernel.kernel.fn.__name__, set())
        texts = {kernel.in_process_key(key): encode_key(key) for key in keys[kernel.name]}
        if asked or texts:
            found["kernels"][kernel.name] = {
                "n_keys": len(keys[kernel.name]),
                "n_asked": len(asked),
                "n_swapped": sum(getattr(key, "swap_ab", False) for key in keys[kernel.name]),
                "not_declared": sorted(asked - texts.keys())[:3],
                "never_asked": [text for asks, text in texts.items() if asks not in asked][:3],
            }
    return found


def unspecialized(target: Target) -> dict[str, int]:
    """A version of vLLM whose kernel is not compiled anew for another number of tokens: keys, and what they are to Triton."""
    from triton import JITFunction

    module = real.module(FusedMoEWNA16.place[0])
    function = JITFunction(module.fused_moe_kernel_gptq_awq.fn, do_not_specialize=["EM", "num_valid_tokens"])
    kernel = type("Unspecialized", (FusedMoEWNA16,), {"kernel": function, "module": module})()
    with answering_for(target):
        keys = declared([kernel], KINDS["int4"])[kernel.name]
    return {"n_keys": len(keys), "n_specializations": len({kernel.in_process_key(key) for key in keys})}


def main() -> None:
    kernels = moe.kernels()
    reasons = [str(kernel.reason) for kernel in kernels if hasattr(kernel, "reason")]
    assert not reasons, reasons
    sorting = real.module(f"{_PACKAGE}.moe_align_block_size")
    sorting.ops.moe_align_block_size = lambda *_, **__: None
    sorting.ops.moe_sum = lambda *_, **__: None
    target = Target.parse(TARGET)
    with TargetScope(target), TritonBackend().pin(target):
        found: dict = {name: compared(kernels, kind, target) for name, kind in KINDS.items()}
        found["unspecialized"] = unspecialized(target)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
