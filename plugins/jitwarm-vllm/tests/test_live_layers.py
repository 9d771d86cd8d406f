"""What `WarmupConfig.from_vllm` reads of the objects that vLLM's MoE layers hold: vLLM's own, without weights."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys, types
import torch
from jitwarm import WarmupConfig
from jitwarm_vllm import real
package = "vllm.model_executor.layers.fused_moe"
config = real.module(f"{package}.config")
triton_moe = real.module(f"{package}.experts.triton_moe")
kernel = real.module(f"{package}.modular_kernel").FusedMoEKernel

def read(quant_config, experts_class):
    experts, moe_kernel = object.__new__(experts_class), object.__new__(kernel)
    experts.quant_config, moe_kernel.impl = quant_config, types.SimpleNamespace(fused_experts=experts)
    sizes = types.SimpleNamespace(num_experts=8, num_local_experts=4, experts_per_token=2, hidden_dim=256,
                                  intermediate_size_per_partition=128, is_act_and_mul=True)
    method = types.SimpleNamespace(moe_kernel=moe_kernel)
    layer = types.SimpleNamespace(moe_config=sizes, routed_experts=types.SimpleNamespace(quant_method=method))
    context = types.SimpleNamespace(static_forward_context={"experts": layer})
    found = WarmupConfig.from_vllm(types.SimpleNamespace(compilation_config=context), 0).moe[0]
    return [found.scheme, found.group_size, found.has_zero_points, found.block_n, found.block_k, found.activation_scale,
            found.has_bias, found.experts]

scale, zeros = torch.empty(1, device="meta"), torch.empty(1, device="meta")
scales = {"w1_scale": scale, "w2_scale": scale}
int4 = config.int4_w4a16_moe_quant_config(**scales, w1_zp=zeros, w2_zp=zeros, block_shape=[0, 64])
int8 = config.int8_w8a16_moe_quant_config(**scales, w1_zp=None, w2_zp=None, block_shape=[0, 128])
print(json.dumps([
    read(config.FUSED_MOE_UNQUANTIZED_CONFIG, triton_moe.TritonExperts),
    read(config.biased_moe_quant_config(zeros, zeros), triton_moe.TritonExperts),
    read(int4, triton_moe.TritonWNA16Experts),
    read(int8, triton_moe.TritonWNA16Experts),
    read(config.fp8_w8a8_moe_quant_config(**scales, block_shape=[128, 128]), triton_moe.TritonExperts),
    read(config.fp8_w8a8_moe_quant_config(**scales, per_act_token_quant=True), triton_moe.TritonExperts),
    read(config.fp8_w8a8_moe_quant_config(**scales), triton_moe.TritonExperts),
]))
"""


@pytest.mark.vllm
def test_vllms_own_objects_say_how_experts_are_quantized():
    done = subprocess.run(  # noqa: S603 - the lines above
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=500, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [
        ["", -1, False, 0, 0, "", False, "TritonExperts"],
        ["", -1, False, 0, 0, "", True, "TritonExperts"],
        ["int4_w4a16", 64, True, 0, 0, "", False, "TritonWNA16Experts"],
        ["int8_w8a16", 128, False, 0, 0, "", False, "TritonWNA16Experts"],
        ["fp8_w8a8", -1, False, 128, 128, "block", False, "TritonExperts"],
        ["fp8_w8a8", -1, False, 0, 0, "token", False, "TritonExperts"],
        ["fp8_w8a8", -1, False, 0, 0, "tensor", False, "TritonExperts"],
    ]
