"""What a kernel author tests: that the plugin keeps the contract, and that what a launch can ask for is what was listed.

No GPU is needed. The first test compiles every key of a small configuration; the others compile nothing.
"""

import pytest

from jitwarm import IntClass, WarmupConfig, encode_key
from jitwarm.testing import check_plugin
from jitwarm_example.gemm import GEMM
from jitwarm_example.rms_norm import RMS_NORM
from jitwarm_example.silu_and_mul import SILU_AND_MUL

CONFIG = WarmupConfig(
    max_num_batched_tokens=4096,
    extra={"example": {"hidden_sizes": [4096], "intermediate_sizes": [2048], "gemm_shapes": [[4096, 1024]]}},
)


def test_the_plugin_keeps_the_contract():
    few_keys = WarmupConfig(max_num_batched_tokens=64, extra=CONFIG.extra)
    found = check_plugin("example", config=few_keys).require()
    assert {check.status.value for check in found} == {"passed"}, str(found)


def listed(kernel):
    return {encode_key(key) for key in kernel.get_warmup_keys(CONFIG)}


@pytest.mark.parametrize("m", [1, 64, 65, 512, 513, 4096])
def test_every_number_of_tokens_reaches_a_listed_gemm(m):
    assert encode_key(GEMM.dispatch(m=m, n=4096, k=1024, dtype="bfloat16")) in listed(GEMM)


def test_decode_and_prefill_use_different_tiles():
    assert {key.block_M for key in GEMM.get_warmup_keys(CONFIG)} == {64, 128}


@pytest.mark.parametrize("stride", [4096, 4104])
def test_contiguous_and_strided_rows_reach_a_listed_norm(stride):
    key = RMS_NORM.dispatch(hidden_size=4096, x_row_stride=stride, dtype="bfloat16")
    assert encode_key(key) in listed(RMS_NORM)
    assert key.x_row_stride is (IntClass.MULTIPLE_OF_16 if stride % 16 == 0 else IntClass.OTHER)


def test_a_rank_lists_the_activations_of_its_own_share():
    half = WarmupConfig(tp_size=2, extra=CONFIG.extra)
    assert [key.n for key in SILU_AND_MUL.get_warmup_keys(half)] == [1024]
