"""Each kernel's keys are built by compile children, which have no GPU, no engine and no platform that answers for a target."""

import json
import os
import subprocess
import sys

import pytest

# Two layers, whose GEMMs are launched for one token: two keys of each kernel.
LAYERS = """
dtype = "bfloat16"
max_num_batched_tokens = 1
[[moe]]
n_experts = 8
n_local_experts = 8
top_k = 2
hidden_size = 512
intermediate_size = 256
scheme = "int4_w4a16"
quantization = "gptq"
group_size = 128
[[moe]]
n_experts = 8
n_local_experts = 8
top_k = 2
hidden_size = 512
intermediate_size = 256
"""


def baked(tmp_path):
    """The report of one bake."""
    (tmp_path / "serving.toml").write_text(LAYERS)
    command = [
        "bake",
        "--target",
        "cuda:90",
        "--out",
        tmp_path / "out",
        "--config",
        tmp_path / "serving.toml",
        "--json",
    ]
    done = subprocess.run(  # noqa: S603 - jitwarm itself
        [sys.executable, "-m", "jitwarm", *command],
        env={**os.environ, "JITWARM_PLUGINS": "triton,vllm_kernels", "JITWARM_PLAN_TIMEOUT_S": "300"},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.vllm
def test_compile_children_build_each_kernel_and_a_second_bake_finds_them(tmp_path):
    first = baked(tmp_path)
    names = [kernel["id"].removeprefix("vllm_kernels:") for kernel in first["kernels"] if kernel["keys"]]
    assert sorted(names) == ["fused_moe_kernel", "fused_moe_kernel_gptq_awq"]
    assert first["outcomes"] == {"compiled": 4}
    assert baked(tmp_path)["outcomes"] == {"loaded": 4}
