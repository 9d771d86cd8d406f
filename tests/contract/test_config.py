"""`WarmupConfig`: plain data, equal to its JSON."""

import dataclasses
import json

import msgspec
import pytest

import jitwarm
from jitwarm import AttentionGroup, MoELayer, NeedsModel, Unresolved, WarmupConfig
from jitwarm.errors import UsageError

FULL = WarmupConfig(
    dtype="float16",
    max_model_len=4096,
    cudagraph_capture_sizes=(1, 2, 4),
    attention=(AttentionGroup(32, 8, 128, sliding_window=4096),),
    moe=(MoELayer(64, 8, 2, 4096, 1024, "fp8"),),
    extra={"example": {"hidden_sizes": [4096]}},
)


@pytest.mark.parametrize("config", [WarmupConfig(), FULL])
def test_a_config_equals_its_json(config):
    text = json.dumps(dataclasses.asdict(config))
    assert msgspec.convert(json.loads(text), WarmupConfig) == config


def test_every_field_has_a_default():
    assert all(
        f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        for f in dataclasses.fields(WarmupConfig)
    )


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        WarmupConfig().dtype = "float32"


def test_a_plugin_reads_its_own_values_and_cannot_change_them_for_others():
    FULL.for_plugin("example")["hidden_sizes"] = None
    assert FULL.for_plugin("example") == {"hidden_sizes": [4096]}
    assert FULL.for_plugin("other") == {}


def test_asking_for_the_model_where_there_is_none_is_unresolved_and_not_failed():
    with pytest.raises(NeedsModel, match="needs the model"):
        WarmupConfig().require_model()
    assert issubclass(NeedsModel, Unresolved)


def test_warm_names_the_nearest_field_of_a_misspelt_one():
    with pytest.raises(UsageError, match="max_num_seqs"):
        jitwarm.warm({"max_num_seq": 4}, target="cuda:90")
