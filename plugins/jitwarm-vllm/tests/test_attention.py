"""What attention declares is what vLLM's host functions ask for: over the files of a GPU wheel, and over the CPU build.

Each comparison drives the real host functions on meta tensors to the launch, at the ends of every region and at 300 random
batches per layer; see `attention_program`.
"""

import json

import pytest
import support_attention
from support_attention import CASES

wheel_files = support_attention.wheel_files  # a fixture
TARGETS = ("cuda:90", "cuda:100")


def check(comparison):
    """No key outside the list, none in it that is never asked for."""
    assert "error" not in comparison, comparison["error"]
    functions = [value for value in comparison.values() if isinstance(value, dict)]
    assert functions
    for function in functions:
        assert function["only_asked"] == []
        assert function["only_declared"] == []
        assert function["declared"] > 0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_declared_is_what_the_wheels_host_functions_ask_for(wheel_files, target, case):
    check(support_attention.document(target, *wheel_files)[case])


@pytest.mark.vllm
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_declared_is_what_the_cpu_builds_host_functions_ask_for(target, case):
    check(support_attention.document(target)[case])


# vLLM 0.33; kernels of the 2D and 3D form together, and the reductions after the latter.
COUNTS = {
    ("cuda:90", "Llama-3.1-8B"): (6, 3),
    ("cuda:90", "Llama-3.1-8B, TP 8"): (6, 3),
    ("cuda:90", "Gemma-3-12B"): (12, 6),
    ("cuda:90", "Qwen3-Next-80B-A3B"): (6, 3),
    ("cuda:100", "Llama-3.1-8B"): (6, 3),
    ("cuda:100", "Gemma-3-12B"): (16, 6),
    ("cuda:100", "Qwen3-Next-80B-A3B"): (8, 3),
}


@pytest.mark.parametrize(("target", "case"), COUNTS)
def test_published_models_have_so_many_keys(wheel_files, target, case):
    found = support_attention.document(target, *wheel_files)[case]
    assert (found["kernel_unified_attention"]["declared"], found["reduce_segments"]["declared"]) == COUNTS[target, case]


SMALL = """
max_num_seqs = 1
max_num_batched_tokens = 64
max_model_len = 2048
{groups}
[extra.vllm_kernels]
attention_backend = "TRITON_ATTN"
mm_encoder_attn_backend = "TRITON_ATTN"
"""
ATTENTION = """
[[attention]]
n_heads = 4
n_kv_heads = 2
head_size = {size}
[[attention]]
n_heads = 4
n_kv_heads = 4
head_size = 64
kind = "vit"
"""


def rows(done):
    """Kernel name -> the rows of its keys, of what a bake printed."""
    return {kernel["id"].partition(":")[2]: kernel["keys"] for kernel in json.loads(done.stdout)["kernels"]}


def check_bake(done):
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = rows(done)
    assert {row["outcome"] for keys in found.values() for row in keys} == {"compiled"}
    return {name: len(keys) for name, keys in found.items() if keys}


@pytest.mark.parametrize(("target", "size"), [("cuda:90", 64), ("cuda:100", 256)])
def test_every_kernel_compiles_where_no_gpu_is(wheel_files, tmp_path, target, size):
    done = support_attention.bake(tmp_path, SMALL.format(groups=ATTENTION.format(size=size)), target, *wheel_files)
    wide = {"unified_attention_wide": 1} if size == 256 else {}
    kernels = {"unified_attention": 2 - len(wide), "reduce_segments": 1, "prefill_attention": 1, **wide}
    assert check_bake(done) == kernels


LORA = """
max_num_seqs = 1
max_num_batched_tokens = 1
[extra.vllm_kernels]
model = "{model}"
max_lora_rank = 16
use_v2_model_runner = true
"""
TINY = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 4,
    "vocab_size": 1024, "head_dim": 64, "num_hidden_layers": 1, "max_position_embeddings": 2048, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_lora_and_the_sampler_compile_where_no_gpu_is(wheel_files, tmp_path, target):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    done = support_attention.bake(tmp_path, LORA.format(model=tmp_path / "config.json"), target, *wheel_files)
    assert check_bake(done) == {
        "lora_shrink": 3, "lora_expand": 3, "sampler_temperature": 1, "sampler_gumbel": 2, "sampler_min_p": 1,
        "sampler_penalties": 1, "sampler_bincount": 1, "sampler_bad_words": 1, "sampler_logit_bias": 2, "sampler_logprobs": 7,
        "sampler_ranks": 1,
    }  # fmt: skip


@pytest.mark.vllm
def test_every_kernel_of_the_cpu_build_compiles_where_no_gpu_is(tmp_path):
    done = support_attention.bake(tmp_path, SMALL.format(groups=ATTENTION.format(size=64)), "cuda:90")
    assert check_bake(done) == {"unified_attention": 2, "reduce_segments": 1, "prefill_attention": 1}


def test_an_nvfp4_cache_is_named_absent_and_costs_nothing_else(wheel_files, tmp_path):
    groups = """
        kv_cache_dtype = "nvfp4"
        [[attention]]
        n_heads = 4
        n_kv_heads = 2
        head_size = 64
    """
    done = support_attention.bake(tmp_path, SMALL.format(groups=groups), "cuda:90", *wheel_files)
    (row,) = rows(done)["nvfp4_prefill_attention"]
    assert row["outcome"] == "skipped"
    assert "absent in this version of vLLM" in row["error"]
