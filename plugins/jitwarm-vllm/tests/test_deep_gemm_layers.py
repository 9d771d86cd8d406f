"""Which layers are taken to run on DeepGEMM, and when nobody asks it."""

import json
from types import SimpleNamespace

import pytest
import torch
from published import DEEPSEEK_V2_LITE, FP8_BLOCKS, LLAMA31_8B, QWEN3_30B, QWEN3_30B_FP8, QWEN3_NEXT

from jitwarm import MoELayer, NeedsModel, Target, Unresolved, WarmupConfig
from jitwarm.contract.backend import TargetScope
from jitwarm.contract.config import LiveObjects
from jitwarm_vllm import deep_gemm, deep_gemm_process
from jitwarm_vllm.deep_gemm_layers import experts_gemms, linear_gemms

EXPERTS = MoELayer(128, 128, 8, 2048, 768, "fp8", scheme="fp8_w8a8", block_n=128, block_k=128, activation_scale="block")


@pytest.fixture
def configured(tmp_path):
    def configure(document, *, tp=1, config=None, **settings):
        (tmp_path / "config.json").write_text(json.dumps(document))
        given = {"model": str(tmp_path / "config.json"), **settings}
        return WarmupConfig(max_num_batched_tokens=100, tp_size=tp, extra={"vllm_kernels": given}, **(config or {}))

    return configure


def gemms(config):
    return [*linear_gemms(config), *experts_gemms(config)]


def keys(config):
    return [key for kernel in deep_gemm.kernels() for key in kernel.get_warmup_keys(config)]


def shapes(config, call="linear"):
    return [(gemm.n, gemm.k) for gemm in gemms(config) if gemm.call == call]


def test_the_projections_of_a_dense_model(configured):
    """As vLLM merges them: query, key and value; the way back; gate and up; down. Divided among ranks."""
    model = {**LLAMA31_8B, "quantization_config": FP8_BLOCKS}
    assert shapes(configured(model)) == [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336)]
    assert shapes(configured(model, tp=8)) == [(768, 4096), (4096, 512), (3584, 4096), (4096, 1792)]


def test_a_model_whose_layers_all_have_experts_has_no_dense_ones(configured):
    assert shapes(configured(QWEN3_30B_FP8)) == [(5120, 2048), (2048, 4096)]


def test_experts_that_every_token_passes(configured):
    shared = shapes(configured({**QWEN3_30B_FP8, "shared_expert_intermediate_size": 512}))
    assert shared == [(5120, 2048), (2048, 4096), (1024, 2048), (2048, 512)]
    assert shapes(configured({**QWEN3_30B_FP8, "n_shared_experts": 2}))[2:] == [(3072, 2048), (2048, 1536)]


def test_experts_where_the_settings_choose_deepgemm(configured):
    chosen = configured(QWEN3_30B_FP8, moe_backend="deep_gemm")
    assert shapes(chosen, "experts") == [(1536, 2048), (2048, 768)]
    assert shapes(configured(QWEN3_30B_FP8), "experts") == []
    divided = configured(QWEN3_30B_FP8, moe_backend="deep_gemm", tensor_parallel_size=8, enable_expert_parallel=True)
    [first, _] = [gemm for gemm in gemms(divided) if gemm.call == "experts"]
    assert (first.groups, first.top_k, first.is_first) == (16, 8, True)


def test_experts_of_an_engine_say_themselves_what_runs_them():
    on_deep_gemm = [
        MoELayer(**{**vars(EXPERTS), "experts": name}) for name in ("TritonOrDeepGemmExperts", "TritonExperts")
    ]
    assert len(shapes(WarmupConfig(moe=(on_deep_gemm[0],)), "experts")) == 2
    assert shapes(WarmupConfig(moe=(on_deep_gemm[1],)), "experts") == []


def test_a_step_of_several_data_parallel_ranks_brings_their_tokens_together():
    layer = MoELayer(**{**vars(EXPERTS), "experts": "DeepGemmExperts"})
    config = WarmupConfig(max_num_batched_tokens=100, dp_size=4, moe=(layer,))
    assert {gemm.tokens for gemm in gemms(config) if gemm.call == "experts"} == {(1, 400)}


def test_each_weight_has_scales_to_transform(configured):
    config = configured(QWEN3_30B_FP8, moe_backend="deep_gemm")
    assert sorted(shapes(config, "scales")) == sorted(shapes(config) + shapes(config, "experts"))


@pytest.mark.parametrize("document", [QWEN3_30B, LLAMA31_8B], ids=["unquantized experts", "unquantized"])
def test_other_weights_are_not_for_deepgemm(configured, document):
    assert gemms(configured(document, moe_backend="deep_gemm")) == []


def test_another_dtype_and_another_backend_are_not_for_deepgemm(configured):
    assert shapes(configured(QWEN3_30B_FP8, dtype="float16")) == []
    assert shapes(configured(QWEN3_30B_FP8, linear_backend="triton")) == []


@pytest.mark.parametrize("document", [DEEPSEEK_V2_LITE, QWEN3_NEXT], ids=["latent", "linear"])
def test_projections_that_config_json_does_not_say_are_a_reason(configured, document):
    with pytest.raises(Unresolved, match="in an engine"):
        gemms(configured({**document, "quantization_config": FP8_BLOCKS}))


def test_experts_are_listed_where_projections_cannot_be(configured):
    """As of DeepSeek's models."""
    document = {**DEEPSEEK_V2_LITE, "quantization_config": FP8_BLOCKS}
    found = experts_gemms(configured(document, moe_backend="deep_gemm"))
    assert [(gemm.n, gemm.k) for gemm in found if gemm.call == "experts"] == [(2816, 2048), (2048, 1408)]


def test_without_layers_and_a_model_the_keys_wait_for_the_engine():
    with pytest.raises(NeedsModel):
        gemms(WarmupConfig(quantization="fp8", has_layers=False))
    assert gemms(WarmupConfig(quantization="awq", has_layers=False)) == []


class FlashInferFp8DeepGEMMDynamicBlockScaledKernel:
    """Stands for vLLM's kernel of this name, which gives few rows to FlashInfer; FlashInfer's needs a GPU."""


def layer(n, k, kernel=None):
    """Stands for a linear layer whose weights vLLM's kernel has prepared: it leaves itself as the layer's provider."""
    module = torch.nn.Module()
    weight = torch.empty((n, k), device="meta")
    module.deep_gemm_warmup_provider = SimpleNamespace(get_deep_gemm_warmup_weights=lambda _: (weight, None))
    module.quant_method = SimpleNamespace(fp8_linear=kernel)
    return module


def test_layers_of_an_engine_hold(configured):
    model = torch.nn.ModuleList([layer(512, 256), layer(512, 256), torch.nn.Linear(4, 4)])
    config = configured(QWEN3_30B_FP8)
    with LiveObjects(model):
        assert shapes(config) == [(512, 256)]


def test_few_rows_are_flashinfers_where_it_shares_a_layer():
    model = torch.nn.ModuleList([layer(512, 256, FlashInferFp8DeepGEMMDynamicBlockScaledKernel())])
    with LiveObjects(model):
        [gemm] = [gemm for gemm in gemms(WarmupConfig(max_num_batched_tokens=100)) if gemm.call == "linear"]
    assert gemm.tokens == (32, 100)


@pytest.mark.parametrize("target", ["cuda:80", "cuda:120", "hip:gfx942"])
def test_targets_that_are_not_declared_have_no_keys(configured, target):
    with TargetScope(Target.parse(target)):
        assert keys(configured(QWEN3_30B_FP8)) == []
    assert "cuda:90" in deep_gemm.DeepGemmBackend().unsupported(Target.parse(target))


def test_where_there_is_no_deepgemm_there_are_no_keys(configured, monkeypatch):
    monkeypatch.setattr(deep_gemm_process, "find_library", lambda: None)
    with TargetScope(Target.parse("cuda:90")):
        assert keys(configured(QWEN3_30B_FP8)) == []
    assert deep_gemm.DeepGemmBackend().missing()


def test_the_number_of_multiprocessors_is_the_usual_parts_unless_it_is_said(configured):
    with TargetScope(Target.parse("cuda:90")):
        assert deep_gemm.n_multiprocessors(configured(QWEN3_30B_FP8)) == 132
        assert deep_gemm.n_multiprocessors(configured(QWEN3_30B_FP8, n_multiprocessors=78)) == 78
        for name, n in (("NVIDIA H20", 78), ("NVIDIA H20-3e", 78), ("NVIDIA H200", 132), ("NVIDIA H100 PCIe", 114)):
            assert deep_gemm.n_multiprocessors(configured(QWEN3_30B_FP8, device_name=name)) == n
