"""Before there is a model, a kernel that asks for layers waits, and every other one does not notice."""

import dataclasses

import pytest
from kits import FourMembers, Key, Plugin

from jitwarm import NeedsModel, Target, WarmupConfig, hookimpl
from jitwarm.contract.config import AttentionGroup
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings


class OfLayers(FourMembers):
    def get_warmup_keys(self, config):
        return [Key(group.head_size) for group in config.attention]


class OfConfiguration(FourMembers):
    def get_warmup_keys(self, config):
        return [Key(config.max_num_seqs)]


def plan(tmp_path, config, *plugins):
    session = Session(Asked(config, Settings(plugins=())), Target("cuda", "90"), root=tmp_path)
    for n, plugin in enumerate(plugins):
        session.registry.add(f"kit{n}", plugin)
    planned = {kernel.id: kernel for kernel in session.plan().kernels}
    session.finish()
    return planned, session


GROUP = AttentionGroup(n_heads=8, n_kv_heads=2, head_size=64)


@pytest.mark.parametrize("name", ["attention", "moe"])
def test_layers_that_are_not_known_are_no_empty_list(name):
    config = WarmupConfig(has_layers=False, max_num_seqs=7)
    seen = config.for_kernels()
    with pytest.raises(NeedsModel, match=f"config.{name}"):
        getattr(seen, name)
    assert (seen.max_num_seqs, seen.is_last_pp_rank, config.attention) == (7, True, ())
    assert WarmupConfig(attention=(GROUP,)).for_kernels().attention == (GROUP,)


def test_kernels_that_ask_for_them_are_listed_when_they_are_there(tmp_path):
    kernels = [OfLayers(name="of_layers"), OfConfiguration(name="of_configuration")]
    config = WarmupConfig(has_layers=False, max_num_seqs=7)
    early, _ = plan(tmp_path, config, Plugin(*kernels))
    assert [key.key for key in early["kit0:of_configuration"].keys] == [Key(7)]
    assert early["kit0:of_layers"].problem[0].value == "unresolved"
    assert "config.attention" in early["kit0:of_layers"].problem[1]
    late, _ = plan(tmp_path, dataclasses.replace(config, has_layers=True, attention=(GROUP,)), Plugin(*kernels))
    assert [key.key for key in late["kit0:of_layers"].keys] == [Key(64)]


def test_a_plugin_that_asks_for_them_waits_and_is_not_refused(tmp_path):
    class Asks:
        @hookimpl
        def jitwarm_kernels(self, config):
            return [OfConfiguration(name=f"head_{group.head_size}") for group in config.attention]

    config = WarmupConfig(has_layers=False)
    early, session = plan(tmp_path, config, Asks(), Plugin(OfConfiguration(name="other")))
    assert (list(early), session.registry.refused) == (["kit1:other"], [])
    late, _ = plan(tmp_path, dataclasses.replace(config, has_layers=True, attention=(GROUP,)), Asks())
    assert list(late) == ["kit0:head_64"]
