"""Each Triton kernel of each family is built where no GPU is, for both targets, by compile processes that import all of vLLM."""

import json

import pytest
import support_attention
from published import GRANITE4_H_SMALL, QWEN3_NEXT_80B

wheel_files = support_attention.wheel_files  # a fixture
TARGETS = ("cuda:90", "cuda:100")

# Attention of two head sizes and of a vision encoder, LoRA, the sampler of runner V2, and the linear layers of the model.
EVERYTHING = """
max_num_seqs = 2
max_num_batched_tokens = 2
max_model_len = 2048
cudagraph_capture_sizes = [1, 2]
[[attention]]
n_heads = 4
n_kv_heads = 2
head_size = 64
[[attention]]
n_heads = 4
n_kv_heads = 2
head_size = 256
[[attention]]
n_heads = 4
n_kv_heads = 4
head_size = 64
kind = "vit"
[extra.vllm_kernels]
model = "{model}"
block_size = 2144
attention_backend = "TRITON_ATTN"
mm_encoder_attn_backend = "TRITON_ATTN"
max_lora_rank = 16
use_v2_model_runner = true
"""
STATE = """
max_num_seqs = 2
max_num_batched_tokens = 2
cudagraph_capture_sizes = [1, 2]
[extra.vllm_kernels]
model = "{model}"
block_size = {block_size}
"""
NVFP4_CACHE = """
kv_cache_dtype = "nvfp4"
[[attention]]
n_heads = 4
n_kv_heads = 2
head_size = 64
[extra.vllm_kernels]
attention_backend = "TRITON_ATTN"
"""
SMALL = {**QWEN3_NEXT_80B, "num_experts": 0, "num_hidden_layers": 4, "vocab_size": 1024}
GDN_KEYS = {"causal_conv1d_fwd": 1, "causal_conv1d_update": 2, "gdn_packed_decode": 1}
MAMBA2_KEYS = {"causal_conv1d_fwd": 2, "causal_conv1d_update": 2, "selective_scan_update": 1}
KEYS = {
    "unified_attention": 4, "reduce_segments": 4, "prefill_attention": 1, "lora_shrink": 6, "lora_expand": 6,
    "sampler_temperature": 1, "sampler_gumbel": 2, "sampler_min_p": 1, "sampler_penalties": 1, "sampler_bincount": 1,
    "sampler_bad_words": 1, "sampler_logit_bias": 2, "sampler_logprobs": 7, "sampler_ranks": 1, **GDN_KEYS,
}  # fmt: skip


def baked(directory, config, document, targets, *wheel, **given):
    """Target -> kernel -> the rows of its keys, all of them compiled."""
    (directory / "config.json").write_text(json.dumps(document))
    text = config.format(model=directory / "config.json", **given)
    found = support_attention.bake(directory, text, targets, *wheel)
    assert {outcome for printed in found for outcome in printed["outcomes"]} == {"compiled"}
    return {
        printed["target"]: {
            kernel["id"].partition(":")[2]: kernel["keys"] for kernel in printed["kernels"] if kernel["keys"]
        }
        for printed in found
    }


def counted(rows):
    return {name: len(keys) for name, keys in rows.items()}


def test_every_kernel_compiles_where_no_gpu_is(wheel_files, tmp_path):
    found = baked(tmp_path, EVERYTHING, SMALL, TARGETS, *wheel_files)
    assert counted(found["cuda:90"]) == KEYS
    assert counted(found["cuda:100"]) == {
        **KEYS,
        "unified_attention_wide": 1,
    }  # Blackwell's form of wide heads, beside the narrow
    # Both targets' launches overlap, whatever the platform says on which the keys are listed.
    for rows in found.values():
        assert all(json.loads(row["key"])["launch_pdl"] == ["bool", "true"] for row in rows["causal_conv1d_update"])


@pytest.mark.parametrize("target", ["cuda:90", "cuda:100"])
def test_mamba2_kernels_compile_where_no_gpu_is(wheel_files, tmp_path, target):
    found = baked(tmp_path, STATE, GRANITE4_H_SMALL, [target], *wheel_files, block_size=4096)
    assert counted(found[target]) == MAMBA2_KEYS


@pytest.mark.vllm
def test_every_kernel_of_the_cpu_build_compiles_where_no_gpu_is(tmp_path):
    found = baked(tmp_path, EVERYTHING, SMALL, TARGETS[:1])
    assert counted(found["cuda:90"]) == {
        **KEYS,
        "unified_attention": 6,
    }  # 0.32 has its split form once more for one sequence


def test_an_nvfp4_cache_is_named_absent_and_costs_nothing_else(wheel_files, tmp_path):
    (printed,) = support_attention.bake(tmp_path, NVFP4_CACHE, TARGETS[:1], *wheel_files)
    (row,) = (row for kernel in printed["kernels"] for row in kernel["keys"] if "nvfp4" in kernel["id"])
    assert row["outcome"] == "skipped"
    assert "absent in this version of vLLM" in row["error"]
