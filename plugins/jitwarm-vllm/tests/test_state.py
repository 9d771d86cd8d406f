"""What state kernels declare is what vLLM's own layer asks for: over the files of a GPU wheel, and over the CPU build.

Each comparison runs a GDN layer from its projections on, with the metadata builder, at the ends of every region and for 300
random numbers of sequences; see `state_cases`.
"""

import json

import pytest
import support_attention
from published import QWEN3_NEXT_80B
from test_attention import check, check_bake, rows

wheel_files = support_attention.wheel_files  # a fixture
TARGETS = ("cuda:90", "cuda:100")
CASES = (
    "Qwen3-Next-80B-A3B",
    "Qwen3-Next-80B-A3B, TP 8",
    "Qwen3-Next-80B-A3B, TP 16, eager",
    "Qwen3-Next-80B-A3B, eager",
    "Qwen3.5, fp32 state",
    "Qwen3.5, fp32 state, TP 4",
    "Qwen3.5, eager",
    "Qwen3.5, TP 8, eager",
    "three sequences",
    "live Qwen3-Next-80B-A3B",
    "live Qwen3.5, eager",
    "live, few captured sizes, wide table",
    "live, aligned pages",
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_declared_is_what_the_wheels_layer_asks_for(wheel_files, target, case):
    check(support_attention.document(target, *wheel_files, cases="state_cases")[case])


@pytest.mark.vllm
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_declared_is_what_the_cpu_builds_layer_asks_for(target, case):
    check(support_attention.document(target, cases="state_cases")[case])


# vLLM 0.33: the convolution, and the recurrence, whose tiles differ with the number of sequences on Blackwell GPUs.
COUNTS = {
    ("cuda:90", "Qwen3-Next-80B-A3B"): (3, 1),
    ("cuda:100", "Qwen3-Next-80B-A3B"): (3, 2),
    ("cuda:90", "Qwen3.5, eager"): (3, 2),
    ("cuda:90", "live, few captured sizes, wide table"): (5, 2),
}


@pytest.mark.parametrize(("target", "case"), COUNTS)
def test_decode_steps_have_so_many_keys(wheel_files, target, case):
    found = support_attention.document(target, *wheel_files, cases="state_cases")[case]
    kernels = ("_causal_conv1d_update_kernel", "fused_recurrent_gated_delta_rule_packed_decode_kernel")
    assert tuple(found[name]["declared"] for name in kernels) == COUNTS[target, case]


SERVING = """
max_num_seqs = 2
max_num_batched_tokens = 2
cudagraph_capture_sizes = [1, 2]
[extra.vllm_kernels]
model = "{model}"
block_size = 544
"""
SMALL = {**QWEN3_NEXT_80B, "num_experts": 0, "num_hidden_layers": 4}


def baked(tmp_path, target, *wheel):
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    return support_attention.bake(tmp_path, SERVING.format(model=tmp_path / "config.json"), target, *wheel)


@pytest.mark.parametrize("target", TARGETS)
def test_state_kernels_compile_where_no_gpu_is(wheel_files, tmp_path, target):
    done = baked(tmp_path, target, *wheel_files)
    assert check_bake(done) == {"causal_conv1d_update": 2, "gdn_packed_decode": 1}
    # Both targets' launches overlap, whatever the platform says on which the keys are listed.
    assert all(json.loads(row["key"])["launch_pdl"] == ["bool", "true"] for row in rows(done)["causal_conv1d_update"])


@pytest.mark.vllm
def test_state_kernels_of_the_cpu_build_compile_where_no_gpu_is(tmp_path):
    assert check_bake(baked(tmp_path, "cuda:90")) == {"causal_conv1d_update": 2, "gdn_packed_decode": 1}


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("without block_size", "vLLM decides it"),
        ("a block_size below the state's", "a page of 16 tokens has 32768 bytes"),
        ("drafts", "speculative decoding"),
        ("live, drafts", "speculative decoding"),
    ],
)
def test_what_cannot_be_known_is_named(wheel_files, case, why):
    last = support_attention.document("cuda:90", *wheel_files, cases="state_cases")[case]["error"]
    assert "Unresolved: " in last
    assert why in last
