"""What state kernels declare is what vLLM's own layer asks for: over the files of a GPU wheel, and over the CPU build.

Each comparison runs a GDN or a Mamba-2 layer from its projections on, with the metadata builder, at the ends of every region and
for 100 random numbers of sequences, that decode alone and beside prompts; see `state_cases` and `mamba_cases`.
"""

import pytest
import support_attention
from test_attention import check

wheel_files = support_attention.wheel_files  # a fixture
TARGETS = ("cuda:90", "cuda:100")
pytestmark = pytest.mark.xdist_group("vLLM's host functions")  # driven once, in one process for each target
GDN_CASES = (
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
MAMBA2_CASES = (
    "Granite-4.0-H-Small",
    "Granite-4.0-H-Small, TP 8",
    "Granite-4.0-H-Small, TP 32",
    "Nemotron-H-8B",
    "Nemotron-H-8B, TP 8, eager",
    "three sequences",
    "live Granite-4.0-H-Small",
    "live, few captured sizes, wide table",
    "live, aligned pages",
)
CASES = [("state_cases", case) for case in GDN_CASES] + [("mamba_cases", case) for case in MAMBA2_CASES]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("cases", "case"), CASES)
def test_declared_is_what_the_wheels_layer_asks_for(wheel_files, target, cases, case):
    check(support_attention.document(target, *wheel_files, cases=cases)[case])


@pytest.mark.vllm
@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("cases", "case"), CASES)
def test_declared_is_what_the_cpu_builds_layer_asks_for(target, cases, case):
    check(support_attention.document(target, cases=cases)[case])


@pytest.mark.vllm
@pytest.mark.soak
def test_tuned_blocks_are_those_of_vllms_file():
    """The CPU build brings the files of every device. Here two of them hold for 1 to 256 sequences."""
    found = support_attention.document("cuda:90", cases="mamba_cases")["Nemotron-H-8B, tuned"]
    check(found)
    assert found["_selective_scan_update_kernel"]["declared"] == 2


# vLLM 0.33: the convolution of prompts and of decodes, and the recurrence, whose tiles differ with the number of sequences on
# Blackwell GPUs.
COUNTS = {
    ("cuda:90", "state_cases", "Qwen3-Next-80B-A3B"): (1, 3, 1),
    ("cuda:100", "state_cases", "Qwen3-Next-80B-A3B"): (1, 3, 2),
    ("cuda:90", "state_cases", "Qwen3.5, eager"): (1, 3, 2),
    ("cuda:90", "state_cases", "live, few captured sizes, wide table"): (1, 5, 2),
    ("cuda:90", "mamba_cases", "Granite-4.0-H-Small"): (2, 3, 1),
    ("cuda:90", "mamba_cases", "Granite-4.0-H-Small, TP 32"): (6, 3, 2),
    ("cuda:90", "mamba_cases", "live, few captured sizes, wide table"): (2, 6, 2),
}
RECURRENCES = {
    "state_cases": "fused_recurrent_gated_delta_rule_packed_decode_kernel",
    "mamba_cases": "_selective_scan_update_kernel",
}


@pytest.mark.parametrize(("target", "cases", "case"), COUNTS)
def test_steps_have_so_many_keys(wheel_files, target, cases, case):
    found = support_attention.document(target, *wheel_files, cases=cases)[case]
    kernels = ("_causal_conv1d_fwd_kernel", "_causal_conv1d_update_kernel", RECURRENCES[cases])
    assert tuple(found[name]["declared"] for name in kernels) == COUNTS[target, cases, case]


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
