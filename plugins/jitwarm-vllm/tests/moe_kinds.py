"""Kinds of MoE layers on which vLLM's host code and the declaration are compared, each with what is special about it."""

import dataclasses

from jitwarm import MoELayer


@dataclasses.dataclass(frozen=True)
class Kind:
    """A layer, and how it is run."""

    layer: MoELayer
    dtype: str = "bfloat16"
    route: str = "layer"
    device_name: str = ""


def int4(*sizes, group_size=128, **more):
    return MoELayer(*sizes, quantization="gptq", group_size=group_size, scheme="int4_w4a16", **more)


def fp8(*sizes, **more):
    return MoELayer(*sizes, quantization="fp8", scheme="fp8_w8a8", **more)


MIXTRAL = (8, 8, 2, 4096, 14336)
QWEN3 = (128, 128, 8, 2048, 768)
BLOCKS = {"block_n": 128, "block_k": 128, "activation_scale": "block"}
KINDS = {
    "int4": Kind(int4(*MIXTRAL), "float16"),
    "int4 on 8 ranks": Kind(int4(8, 8, 2, 4096, 1792), "float16"),
    "int4, tuned": Kind(int4(*MIXTRAL), "float16", device_name="tuned GPU"),
    "int4, zero points, small groups": Kind(int4(60, 60, 4, 2048, 1408, group_size=32, has_zero_points=True)),
    "int4, experts divided": Kind(int4(8, 4, 2, 4096, 14336), "float16"),
    "int4, one of 16": Kind(int4(16, 16, 1, 5120, 8192)),
    "int4 through the function": Kind(int4(*MIXTRAL), "float16", route="functional"),
    "int8": Kind(MoELayer(*MIXTRAL, quantization="gptq", group_size=128, scheme="int8_w8a16"), "float16"),
    "bfloat16": Kind(MoELayer(*QWEN3)),
    "bfloat16, tuned": Kind(MoELayer(*QWEN3), device_name="tuned GPU"),
    "bfloat16, experts divided": Kind(MoELayer(128, 16, 8, 2048, 768)),
    "bfloat16 through the function": Kind(MoELayer(*QWEN3), route="functional"),
    "float32": Kind(MoELayer(8, 8, 2, 512, 1000), "float32"),
    "odd sizes": Kind(MoELayer(7, 7, 3, 1000, 300), "float16"),
    "bias": Kind(MoELayer(32, 32, 4, 2880, 2880, has_bias=True)),
    "weights on the input": Kind(MoELayer(16, 16, 1, 5120, 8192, router_weight_on_input=True)),
    "weights on the input, through the function": Kind(
        MoELayer(16, 16, 1, 5120, 8192, router_weight_on_input=True), route="functional"
    ),
    "fp8 in blocks": Kind(fp8(*QWEN3, **BLOCKS)),
    "fp8 in blocks, one row of scales": Kind(fp8(8, 8, 2, 128, 64, **BLOCKS)),
    "fp8 in small blocks": Kind(fp8(128, 128, 8, 2048, 96, block_n=32, block_k=32, activation_scale="block")),
    "fp8 in blocks, experts divided": Kind(fp8(128, 16, 8, 2048, 768, **BLOCKS)),
    "fp8 in blocks, through the function": Kind(fp8(*QWEN3, **BLOCKS), "float16", route="functional"),
    "fp8 per token": Kind(fp8(*QWEN3, activation_scale="token"), "float16"),
    "fp8 per tensor": Kind(fp8(*MIXTRAL, activation_scale="tensor")),
}
