"""A published `config.json` becomes what one rank runs with."""

import dataclasses
import json

import published
import pytest

from jitwarm import AttentionGroup, MoELayer, NeedsModel, WarmupConfig
from jitwarm.contract.config import LiveObjects
from jitwarm_vllm import lora, models
from jitwarm_vllm.quantization import ModelConfigError

# The GPTQ checkpoint of Mixtral on one rank.
INT4 = {"quantization": "gptq", "group_size": 128, "scheme": "int4_w4a16"}
FP8 = {"quantization": "fp8", "scheme": "fp8_w8a8", "activation_scale": "block"}


@pytest.mark.parametrize(
    ("config", "parallel", "moe"),
    [
        (published.MIXTRAL, {}, MoELayer(8, 8, 2, 4096, 14336)),
        (published.MIXTRAL, {"tp_size": 8}, MoELayer(8, 8, 2, 4096, 1792)),
        (published.MIXTRAL, {"tp_size": 8, "enable_expert_parallel": True}, MoELayer(8, 1, 2, 4096, 14336)),
        (published.MIXTRAL_GPTQ, {"tp_size": 2}, MoELayer(8, 8, 2, 4096, 7168, **INT4)),
        (published.MIXTRAL_AWQ, {}, MoELayer(8, 8, 2, 4096, 14336, **{**INT4, "quantization": "awq"}, has_zero_points=True)),
        (published.QWEN15_MOE_GPTQ, {"tp_size": 2}, MoELayer(60, 60, 4, 2048, 704, **{**INT4, "group_size": 64})),
        (published.QWEN3_30B, {"tp_size": 8}, MoELayer(128, 128, 8, 2048, 96)),
        (published.QWEN3_30B_FP8, {}, MoELayer(128, 128, 8, 2048, 768, **FP8, block_n=128, block_k=128)),
        (published.QWEN3_30B_FP8, {"tp_size": 8}, MoELayer(128, 128, 8, 2048, 96, **FP8, block_n=32, block_k=32)),
        (published.DEEPSEEK_V2_LITE, {}, MoELayer(64, 64, 6, 2048, 1408)),
        (published.LLAMA4_SCOUT, {}, MoELayer(16, 16, 1, 5120, 8192, router_weight_on_input=True)),
    ],
)  # fmt: skip
def test_the_experts_of_a_rank(config, parallel, moe):
    assert models.read(config, **parallel).moe == (moe,)


def test_the_first_ranks_hold_what_cannot_be_divided():
    shares = [
        models.read(published.QWEN15_MOE_GPTQ, tp_size=8, enable_expert_parallel=True, ep_rank=rank)
        .moe[0]
        .n_local_experts
        for rank in range(8)
    ]
    assert shares == [8, 8, 8, 8, 7, 7, 7, 7]


@pytest.mark.parametrize(
    ("config", "tp_size", "groups"),
    [
        (published.LLAMA31_8B, 1, [AttentionGroup(32, 8, 128)]),
        (published.LLAMA31_8B, 8, [AttentionGroup(4, 1, 128)]),
        (published.QWEN3_30B, 8, [AttentionGroup(4, 1, 128)]),
        (published.GEMMA3_12B, 1, [AttentionGroup(16, 8, 256, 1024), AttentionGroup(16, 8, 256)]),
        (published.BAMBA_9B, 1, [AttentionGroup(32, 8, 128)]),
        (published.QWEN3_NEXT, 1, [AttentionGroup(16, 2, 256)]),
        (published.QWEN15_MOE_GPTQ, 1, [AttentionGroup(16, 16, 128)]),
        (published.DEEPSEEK_V2_LITE, 1, []),
        ({**published.LLAMA31_8B, "sliding_window": 4096}, 1, [AttentionGroup(32, 8, 128, 4096)]),
        ({"model_type": "mamba2", "num_hidden_layers": 4, "hidden_size": 64}, 1, []),
    ],
)
def test_the_attention_of_a_rank(config, tp_size, groups):
    assert list(models.read(config, tp_size=tp_size).attention) == groups


def test_layers_that_are_named_one_by_one():
    kinds = ["sliding_attention", "full_attention", "linear_attention"] * 2
    config = {**published.LLAMA31_8B, "num_hidden_layers": 6, "sliding_window": 512, "layer_types": kinds}
    assert list(models.read(config).attention) == [AttentionGroup(32, 8, 128, 512), AttentionGroup(32, 8, 128)]


def test_what_the_checkpoint_says_of_dtype_cache_and_method():
    config = models.read(published.LLAMA31_8B_NVFP4)
    assert (config.dtype, config.kv_cache_dtype, config.quantization) == ("bfloat16", "fp8_e4m3", "modelopt")
    assert models.read({**published.LLAMA31_8B, "torch_dtype": "float32"}).dtype == "bfloat16"
    assert models.read(published.LLAMA31_8B, dtype="float16", max_num_batched_tokens=64).max_num_batched_tokens == 64


@pytest.mark.parametrize(
    ("change", "parallel", "said"),
    [
        ({"num_experts_per_tok": None}, {}, "num_experts_per_tok"),
        ({"hidden_size": None}, {}, "hidden_size"),
        ({"hidden_size": "4096"}, {}, "hidden_size is '4096'"),
        ({"num_attention_heads": 0}, {}, "num_attention_heads is 0"),
        ({}, {"tp_size": 3}, "cannot be divided among 3"),
        ({}, {"tp_size": 0}, "tp_size=0"),
        ({"torch_dtype": "int3"}, {}, "int3"),
    ],
)
def test_a_configuration_that_lacks_a_fact_is_refused_by_name(change, parallel, said):
    heads = {"layer_types": ["full_attention"]} if "num_attention_heads" in change else {}
    with pytest.raises(ModelConfigError, match=said):
        models.read({**published.MIXTRAL, **heads, **change}, **parallel)


def test_experts_that_no_group_divides_are_refused_as_vllm_refuses_them():
    with pytest.raises(ModelConfigError, match="no group of 32"):
        models.read(published.QWEN15_MOE_GPTQ, tp_size=8)


@pytest.fixture
def model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(published.MIXTRAL_GPTQ))
    return tmp_path


def config_of(**given):
    return WarmupConfig(extra={"vllm_kernels": given})


@pytest.mark.parametrize("path", ["", "config.json"])
def test_the_settings_name_a_model_and_how_it_is_divided(model, path):
    given = config_of(model=str(model / path), tensor_parallel_size=2)
    read = models.configuration(given)
    assert read.moe == (MoELayer(8, 8, 2, 4096, 7168, **INT4),)
    assert (read.dtype, read.tp_size, read.max_num_batched_tokens) == ("float16", 2, 8192)
    assert read.extra == given.extra


def test_the_users_dtype_goes_before_the_models(model):
    assert models.configuration(config_of(model=str(model), dtype="bfloat16")).dtype == "bfloat16"


def test_before_an_engine_has_layers_the_named_model_says_what_they_will_be(model):
    """An early builder asks so: a configuration that refuses to answer for layers."""
    extra = {"vllm_kernels": {"model": str(model)}}
    config = WarmupConfig(tp_size=2, has_layers=False, extra=extra).for_kernels()
    assert models.configuration(config).moe == models.read(published.MIXTRAL_GPTQ, tp_size=2).moe


def test_the_configurations_own_model_and_device_are_taken_where_the_settings_name_none(model, tmp_path):
    config = WarmupConfig(tp_size=2, dtype="bfloat16", has_layers=False, model=str(model), device_name="NVIDIA H200")
    early = models.configuration(config.for_kernels())
    assert early.moe == models.read(published.MIXTRAL_GPTQ, tp_size=2).moe
    assert early.dtype == "bfloat16"  # the engine's, which need not be the checkpoint's
    assert models.settings(config).device_name == "NVIDIA H200"
    other = tmp_path / "other.json"
    named = dataclasses.replace(config, extra={"vllm_kernels": {"model": str(other), "device_name": "NVIDIA B200"}})
    assert models.settings(named).model == str(other)
    assert models.settings(named).device_name == "NVIDIA B200"


def test_where_the_live_model_is_there_the_configurations_path_is_not_read():
    config = WarmupConfig(model="/nonexistent")
    with LiveObjects(object()):
        assert models.configuration(config) is config


def test_of_lora_the_file_says_the_projections_also_where_the_live_model_is_there(model):
    config = WarmupConfig(
        model=str(model), attention=(AttentionGroup(32, 8, 128),), extra={"vllm_kernels": {"max_lora_rank": 16}}
    )
    with LiveObjects(object()):
        assert lora.LoraKernel.is_reached(config)
        assert lora.Projection(4096, (4096, 1024, 1024)) in list(lora.projections(config))
        assert not lora.LoraKernel.is_reached(dataclasses.replace(config, model=""))


def test_where_no_model_is_named_layers_are_waited_for():
    with pytest.raises(NeedsModel):
        _ = models.configuration(WarmupConfig(has_layers=False).for_kernels()).moe


def test_live_layers_go_before_the_model_in_the_settings(model):
    live = WarmupConfig(moe=(MoELayer(64, 8, 2, 4096, 1024),), extra={"vllm_kernels": {"model": str(model)}})
    assert models.configuration(live) is live


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"modle": "x"}, "did you mean 'model'"),
        ({"tensor_parallel_size": "8"}, "a value of type int"),
        ({"model": "no/such/model"}, "cannot be read"),
    ],
)
def test_wrong_settings_are_refused_by_name(given, said):
    with pytest.raises(ModelConfigError, match=said):
        models.configuration(config_of(**given))


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelConfigError):
        models.configuration(config_of(model=str(tmp_path)))
