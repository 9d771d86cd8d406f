"""What attention declares is what vLLM's host functions ask for: over the files of a GPU wheel, and over the CPU build.

Each comparison drives the real host functions on meta tensors to the launch, at the ends of every region and at 300 random
batches per layer; see `attention_program`.
"""

import pytest
import support_attention
from support_attention import CASES

wheel_files = support_attention.wheel_files  # a fixture
TARGETS = ("cuda:90", "cuda:100")
pytestmark = pytest.mark.xdist_group("vLLM's host functions")  # driven once, in one process for each target


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
@pytest.mark.soak
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
