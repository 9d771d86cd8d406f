"""What the ranks of one node say in vLLM's log: needs no vLLM. `tests/vllm_engine` has it in a real engine."""

import logging
import types

import pytest
from kits import FourMembers, Key, Plugin

from jitwarm import Target, WarmupConfig
from jitwarm.integrations.vllm.reporting import Reporter
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings


@pytest.fixture
def start(tmp_path, monkeypatch, caplog):
    """One rank's warm-up; what it logged, as (level, text)."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    caplog.set_level(logging.INFO, "vllm.jitwarm")

    def start(rank, *keys, engine="engine-1", is_verbose=False):
        caplog.clear()
        config = types.SimpleNamespace(instance_id=engine, parallel_config=None)
        reporter = Reporter(types.SimpleNamespace(rank=rank, vllm_config=config), is_verbose=is_verbose)
        asked = Asked(WarmupConfig(), Settings(plugins=(), isolate=False, run_id="the same"))
        session = Session(asked, Target("cuda", "90"), root=tmp_path / "store", listeners=[reporter], rank=rank)
        session.registry.add("site", Plugin(FourMembers(*keys, backend="workshop")))
        session.run(session.plan())
        reporter.close(session)
        session.finish()
        return [(record.levelname, record.getMessage()) for record in caplog.records]

    return start


def test_ranks_with_the_same_keys_say_one_line_in_all(start):
    (level, line) = start(1, Key(1), Key(2))[0]
    assert level == "INFO"
    assert "2 of 2 keys warm for cuda:90" in line
    assert start(0, Key(1), Key(2)) == []


def test_ranks_with_other_keys_have_a_line_of_their_own(start):
    assert len(start(0, Key(1))) == len(start(1, Key(2))) == 1


def test_another_start_speaks_again_even_under_the_same_run(start):
    assert len(start(0, Key(1))) == len(start(0, Key(1), engine="engine-2")) == 1


def test_verbose_is_a_line_for_each_key(start):
    told = [line for _, line in start(0, Key(1), Key(2), is_verbose=True)]
    assert [line.partition(" in ")[0] for line in told[:2]] == [
        "jitwarm: site:four [n=1]: compiled",
        "jitwarm: site:four [n=2]: compiled",
    ]
