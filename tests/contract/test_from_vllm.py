"""`WarmupConfig.from_vllm`: what a configuration of vLLM says, read by attribute; what it does not say keeps its default."""

import dataclasses
import json
from types import SimpleNamespace as Some

import pytest

from jitwarm import AttentionGroup, MoELayer, NeedsModel, WarmupConfig
from jitwarm.contract.config import LiveObjects
from jitwarm.settings import read_config


def attention(**more):
    return Some(**{"num_heads": 32, "num_kv_heads": 8, "head_size": 128, **more})


def experts(**more):
    sizes = {"num_experts": 64, "num_local_experts": 8, "experts_per_token": 2, "hidden_dim": 4096}
    return Some(moe_config=Some(**{**sizes, "intermediate_size_per_partition": 1024, **more}))


def with_layers(*layers, **more):
    named = {f"layers.{i}": layer for i, layer in enumerate(layers)}
    return WarmupConfig.from_vllm(Some(compilation_config=Some(static_forward_context=named), **more), 0)


def ranks_of(rank, **parallel):
    config = WarmupConfig.from_vllm(Some(parallel_config=Some(**parallel)), rank)
    return {
        name: (getattr(config, f"{name}_rank"), getattr(config, f"{name}_size")) for name in ("tp", "pp", "dp", "ep")
    }


FULL = Some(
    model_config=Some(dtype="torch.float16", max_model_len=4096, quantization="fp8"),
    cache_config=Some(cache_dtype="fp8_e4m3"),
    scheduler_config=Some(max_num_batched_tokens=2048, max_num_seqs=64),
    compilation_config=Some(
        cudagraph_capture_sizes=[4, 1, 2], static_forward_context={"a": attention(sliding_window=1024), "m": experts()}
    ),
    speculative_config=Some(num_speculative_tokens=3),
    parallel_config=Some(tensor_parallel_size=2, pipeline_parallel_size=2),
    quant_config=Some(get_name=lambda: "fp8", group_size=128),
)
EMPTY_PARTS = Some(
    model_config=Some(),
    cache_config=None,
    scheduler_config=Some(max_num_seqs=None),
    compilation_config=Some(cudagraph_capture_sizes=None, static_forward_context=None),
    parallel_config=Some(),
    quant_config=None,
    speculative_config=None,
)


@pytest.mark.parametrize("config", [Some(), None, EMPTY_PARTS], ids=["nothing", "none", "empty parts"])
def test_what_is_not_there_keeps_its_default(config):
    assert WarmupConfig.from_vllm(config, 0) == WarmupConfig()


def test_every_field_is_read_from_where_vllm_keeps_it():
    assert WarmupConfig.from_vllm(FULL, 3, {"acme": {"fast": True}}) == WarmupConfig(
        dtype="float16",
        kv_cache_dtype="fp8_e4m3",
        max_num_batched_tokens=2048,
        max_num_seqs=64,
        max_model_len=4096,
        cudagraph_capture_sizes=(1, 2, 4),
        tp_rank=1,
        tp_size=2,
        pp_rank=1,
        pp_size=2,
        num_speculative_tokens=3,
        attention=(AttentionGroup(32, 8, 128, sliding_window=1024),),
        moe=(MoELayer(64, 8, 2, 4096, 1024, "fp8", 128),),
        quantization="fp8",
        extra={"acme": {"fast": True}},
    )


def test_the_models_own_configuration_is_named_where_it_is_here_and_what_runs(tmp_path, monkeypatch):
    def read(**model):
        return WarmupConfig.from_vllm(Some(model_config=Some(**model)), 0).model

    (tmp_path / "mixtral").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read(model="mixtral") == ""
    (tmp_path / "mixtral" / "config.json").write_text("{}")
    assert read(model="mixtral") == str(tmp_path / "mixtral")
    assert read(model="acme/mixtral", hf_config_path="mixtral") == str(tmp_path / "mixtral")
    assert read(model="mixtral", hf_overrides={"num_hidden_layers": 1}) == ""
    assert read(model="s3://bucket/mixtral") == ""


@pytest.mark.parametrize("config", [Some(), FULL], ids=["empty", "full"])
def test_what_is_read_equals_its_json(config):
    read = WarmupConfig.from_vllm(config, 1, {"acme": {"sizes": [1, 2]}})
    assert read_config(json.loads(json.dumps(dataclasses.asdict(read)))) == read


def test_the_real_dtype_of_torch_is_read_as_its_name():
    torch = pytest.importorskip("torch")
    assert WarmupConfig.from_vllm(Some(model_config=Some(dtype=torch.bfloat16)), 0).dtype == "bfloat16"


# --- ranks -------------------------------------------------------------------------------------------------------------


def test_one_process_is_the_only_rank_of_every_group():
    assert ranks_of(0) == {"tp": (0, 1), "pp": (0, 1), "dp": (0, 1), "ep": (0, 1)}


def test_tensor_ranks_are_the_inner_ones_and_stages_the_outer_ones():
    parallel = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}
    seen = [ranks_of(rank, **parallel) for rank in range(4)]
    assert [(ranks["tp"], ranks["pp"]) for ranks in seen] == [
        ((0, 2), (0, 2)),
        ((1, 2), (0, 2)),
        ((0, 2), (1, 2)),
        ((1, 2), (1, 2)),
    ]


def test_context_ranks_stand_between_tensor_ranks_and_stages():
    parallel = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "prefill_context_parallel_size": 2}
    assert [ranks_of(rank, **parallel)["pp"][0] for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [ranks_of(rank, **parallel)["tp"][0] for rank in range(8)] == [0, 1] * 4


@pytest.mark.parametrize(
    ("parallel", "expected"),
    [
        ({"data_parallel_rank": 1}, 1),
        ({"data_parallel_index": 1, "data_parallel_rank": 0}, 1),
        ({"data_parallel_index": 0, "data_parallel_rank": 1}, 0),
        ({}, 0),
    ],
)
def test_the_data_rank_is_the_engines_own_and_the_index_counts_where_there_is_one(parallel, expected):
    assert ranks_of(0, data_parallel_size=2, **parallel)["dp"] == (expected, 2)


def test_experts_span_data_and_tensor_ranks():
    seen = [
        ranks_of(
            rank, tensor_parallel_size=2, data_parallel_size=2, data_parallel_index=dp, enable_expert_parallel=True
        )
        for dp in (0, 1)
        for rank in (0, 1)
    ]
    assert [ranks["ep"] for ranks in seen] == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_without_expert_parallelism_every_rank_holds_all_experts():
    assert ranks_of(1, tensor_parallel_size=2, enable_expert_parallel=False)["ep"] == (0, 1)


def test_each_stage_has_expert_groups_of_its_own():
    parallel = {"tensor_parallel_size": 2, "pipeline_parallel_size": 2, "enable_expert_parallel": True}
    assert [ranks_of(rank, **parallel)["ep"] for rank in range(4)] == [(0, 2), (1, 2), (0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("rank", "size", "is_first", "is_last"),
    [(0, 1, True, True), (0, 3, True, False), (1, 3, False, False), (2, 3, False, True)],
)
def test_the_first_and_the_last_stage_know_themselves(rank, size, is_first, is_last):
    config = WarmupConfig(pp_rank=rank, pp_size=size)
    assert (config.is_first_pp_rank, config.is_last_pp_rank) == (is_first, is_last)


# --- layers ------------------------------------------------------------------------------------------------------------


def test_layers_of_one_shape_are_one_group_in_the_order_of_the_model():
    config = with_layers(attention(), attention(head_size=64), attention(), attention(head_size=64))
    assert config.attention == (AttentionGroup(32, 8, 128), AttentionGroup(32, 8, 64))


@pytest.mark.parametrize(("window", "expected"), [(-1, None), (None, None), (0, None), (4096, 4096), ((127, 0), None)])
def test_a_window_is_a_number_of_tokens_or_none(window, expected):
    assert with_layers(attention(sliding_window=window)).attention[0].sliding_window == expected


def test_full_and_sliding_layers_are_two_groups():
    config = with_layers(attention(sliding_window=None), attention(sliding_window=1024), attention(sliding_window=-1))
    assert [group.sliding_window for group in config.attention] == [None, 1024]


def test_the_soft_cap_and_the_backend_are_the_layers():
    layer = attention(impl=Some(logits_soft_cap=30), attn_backend=Some(get_name=lambda: "FLASH_ATTN"))
    assert with_layers(layer).attention == (AttentionGroup(32, 8, 128, logits_soft_cap=30.0, backend="FLASH_ATTN"),)


def test_what_makes_a_layers_attention_a_variant_of_its_own_is_read_from_the_layer():
    impl = Some(
        kv_cache_dtype="nvfp4", sinks=Some(dtype="torch.bfloat16"), alibi_slopes=[0.5], kv_sharing_target_layer_name="layers.0",
        chunk_lookback=2,
    )  # fmt: skip
    cache = Some(shape=(100, 8, 32, 256))
    [group] = with_layers(attention(impl=impl, attn_type=Some(value="encoder_only"), kv_cache=cache)).attention
    assert group == AttentionGroup(
        32, 8, 128, kind="encoder_only", kv_cache_dtype="nvfp4", block_size=32, sinks_dtype="bfloat16", has_alibi=True,
        shares_kv=True, chunk_lookback=2,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (2, 100, 16, 8, 128), (100, 16, 8, 256)])
def test_a_cache_of_another_layout_says_nothing_of_the_page(shape):
    [group] = with_layers(attention(kv_cache=Some(shape=shape))).attention
    assert group.block_size == 16


@pytest.mark.parametrize(
    "layer", [Some(), Some(num_heads=32), attention(num_kv_heads=None), attention(head_size="128"), None, "layer"]
)
def test_what_lacks_a_size_is_no_attention_layer(layer):
    assert with_layers(layer).attention == ()


def test_experts_are_known_by_their_moe_config_and_shapes_are_listed_once():
    config = with_layers(experts(), attention(), experts(), experts(num_experts=128))
    assert config.moe == (MoELayer(64, 8, 2, 4096, 1024), MoELayer(128, 8, 2, 4096, 1024))
    assert len(config.attention) == 1


def test_experts_that_say_no_local_number_hold_all():
    assert with_layers(experts(num_local_experts=None)).moe[0].n_local_experts == 64


@pytest.mark.parametrize("layer", [Some(), Some(moe_config=None), Some(moe_config=Some()), experts(num_experts=None)])
def test_what_has_no_number_of_experts_is_no_moe_layer(layer):
    assert with_layers(layer).moe == ()


def test_the_quantization_of_experts_is_the_models():
    layer = with_layers(experts(), quant_config=Some(get_name=lambda: "awq", group_size=64)).moe[0]
    assert (layer.quantization, layer.group_size) == ("awq", 64)


def running(**quant_config):
    """Experts that a class of the engine runs, as it is after the weights are loaded."""

    class TritonExperts(Some):
        pass

    method = Some(moe_kernel=Some(fused_experts=TritonExperts(quant_config=Some(**quant_config))))
    layer = experts()
    layer.routed_experts = Some(quant_method=method, apply_router_weight_on_input=True)
    return layer


@pytest.mark.parametrize(
    ("quant_config", "said"),
    [
        ({}, {}),
        (
            {"use_int4_w4a16": True, "block_shape": [0, 64], "w1_zp": object()},
            {"scheme": "int4_w4a16", "group_size": 64, "has_zero_points": True},
        ),
        (
            {"use_fp8_w8a8": True, "block_shape": [128, 64]},
            {"scheme": "fp8_w8a8", "block_n": 128, "block_k": 64, "activation_scale": "block"},
        ),
        ({"use_fp8_w8a8": True, "per_act_token_quant": True}, {"scheme": "fp8_w8a8", "activation_scale": "token"}),
        (
            {"use_fp8_w8a8": True, "w1_bias": object()},
            {"scheme": "fp8_w8a8", "activation_scale": "tensor", "has_bias": True},
        ),
        ({"use_nvfp4_w4a4": True}, {"scheme": "nvfp4_w4a4"}),
    ],
)
def test_what_runs_the_experts_says_how_they_are_quantized(quant_config, said):
    layer = with_layers(running(**quant_config)).moe[0]
    assert layer == MoELayer(64, 8, 2, 4096, 1024, router_weight_on_input=True, experts="TritonExperts", **said)


# --- live objects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [WarmupConfig.require_model, WarmupConfig.require_runner])
def test_live_objects_answer_while_they_are_lent_and_not_before_or_after(ask):
    model, runner = object(), object()
    expected = model if ask is WarmupConfig.require_model else runner
    with pytest.raises(NeedsModel):
        ask(WarmupConfig())
    with LiveObjects(model, runner):
        assert ask(WarmupConfig()) is expected
        with LiveObjects("inner", "inner"):
            assert ask(WarmupConfig()) == "inner"
        assert ask(WarmupConfig()) is expected
    with pytest.raises(NeedsModel):
        ask(WarmupConfig())
