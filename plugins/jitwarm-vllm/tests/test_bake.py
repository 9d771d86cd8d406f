"""Each kernel's keys are built by compile children, which have no GPU, no engine and no platform that answers for a target."""

import json
import os
import subprocess
import sys

import pytest

from jitwarm import WarmupConfig
from jitwarm.early import EarlyBuilder, Spec
from jitwarm.settings import Settings

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


def baked(tmp_path, config=LAYERS):
    """The report of one bake."""
    (tmp_path / "serving.toml").write_text(config)
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


MODEL = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "torch_dtype": "bfloat16", "hidden_size": 512,
    "intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 2, "num_local_experts": 8,
    "num_experts_per_tok": 2,
}  # fmt: skip


@pytest.mark.vllm
def test_an_early_builder_builds_for_the_engines_model(tmp_path, monkeypatch):
    """Before there is a layer; what a run with the same layers then wants is there."""
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    monkeypatch.setenv("JITWARM_PLAN_TIMEOUT_S", "300")
    settings = Settings(cache_dir=str(tmp_path / "out"), plugins=("triton", "vllm_kernels"), plan_timeout_s=300.0)
    config = WarmupConfig(max_num_batched_tokens=1, has_layers=False, model=str(tmp_path))
    builder = EarlyBuilder(Spec(config, settings, "cuda:90"))
    try:
        builder.loaded()
        builder._process.wait(500)  # noqa: SLF001 - nobody else waits for its end
    finally:
        builder.close()
    layers = f"max_num_batched_tokens = 1\n[extra.vllm_kernels]\nmodel = {str(tmp_path / 'config.json')!r}\n"
    assert baked(tmp_path, layers)["outcomes"] == {"loaded": 2}
