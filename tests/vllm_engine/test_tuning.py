"""Tuned artifacts in a real engine of two ranks: tuned once, applied by both or by none."""

from dataclasses import replace
from pathlib import Path

import pytest
from kits import install

pytestmark = pytest.mark.vllm

PACKAGE = Path(__file__).parent / "packages" / "tuned_kernels.py"

TWO_RANKS = {"worker_cls": "engine_worker.MonitoredCPUWorker", "tensor_parallel_size": 2}
IN_USE = [["tuned_in_use", []]]


@pytest.fixture
def start(start_engine, site):
    install(site, "tuned_kernels", PACKAGE.read_text(), plugin="tuned")
    return lambda worker_cls=TWO_RANKS["worker_cls"], **variables: start_engine(
        IN_USE,
        {**TWO_RANKS, "worker_cls": worker_cls},
        JITWARM_PLUGINS="tuned",
        VLLM_CPU_OMP_THREADS_BIND="0|1",
        VLLM_CPU_NUM_OF_RESERVED_CPU="0",
        **variables,
    )


@pytest.mark.timeout(1500)  # three starts
def test_one_rank_tunes_both_apply_and_the_next_start_finds_it(start):
    first = start()
    assert len(first.answer["tokens"]) == 3
    [[mine, others]] = first.answer["calls"]
    assert mine == others
    assert mine.startswith("found by rank 0")
    assert len(first.all("tune_end")) == 1
    assert [first.outcomes(rank) for rank in (0, 1)] == [{"tuned:threads": ["compiled"]}, {"tuned:threads": ["loaded"]}]
    assert len({event["sha256"] for event in first.all("tuned_applied")}) == 1
    assert any("1 of 1 keys warm" in line for line in first.lines)

    second = start()
    assert second.answer["calls"] == first.answer["calls"]
    assert len(second.all("tune_end")) == 1  # the first start's
    assert len(second.all("tuned_applied")) == 4

    [kept] = (second.store / "tuned").glob("*.bin")
    kept.write_bytes(b"found by rank 0, and then something happened to it")
    third = start()
    [[mine, others]] = third.answer["calls"]
    assert mine == others
    assert mine not in first.answer["calls"][0]
    assert mine.startswith("found by rank 0, process ")
    assert third.all("entry_damaged")
    assert len(third.all("tune_end")) == 2


@pytest.mark.timeout(1000)  # two starts
def test_a_hit_on_one_rank_and_a_miss_on_the_other_do_not_part_them(start):
    """As on two nodes, of which one has lost its store: the bytes go through the engine's own process group."""
    first = start(worker_cls="engine_worker.ApartCPUWorker")
    stores = [first.store.with_name(f"{first.store.name}-{rank}") for rank in (0, 1)]
    [[mine, others]] = first.answer["calls"]
    assert mine == others
    assert mine.startswith("found by rank 0")
    for kept in (stores[1] / "tuned").iterdir():
        kept.unlink()

    second = start(worker_cls="engine_worker.ApartCPUWorker")
    assert second.answer["calls"] == first.answer["calls"]
    ends = [replace(first, store=store).all("tune_end") for store in stores]
    assert [len(tuned) for tuned in ends] == [1, 0]  # in the first start, by the first rank
    assert list((stores[1] / "tuned").glob("*.bin"))


@pytest.mark.soak  # `tests/engine/test_tuning.py` asks the same of processes without an engine
def test_a_rank_that_cannot_list_keeps_both_from_applying_and_the_engine_serves(start):
    started = start(TUNED_DOES="fails on one rank")
    assert len(started.answer["tokens"]) == 3
    assert started.answer["calls"] == [["", ""]]
    assert not started.all("tune_start")
    assert started.outcomes(0) == {"tuned:threads": ["failed"]}
    assert any("rank 1: listing the tuned artifacts of tuned failed" in line for line in started.lines)


def test_a_killed_tuner_does_not_hang_the_other_rank(start):
    """vLLM ends an engine of which a worker is dead; the other rank is not left waiting, and applies nothing."""
    started = start(TUNED_DOES="dies")
    assert "error" in started.answer
    assert not started.all("tuned_applied")
    assert not list(started.store.glob("tuned/*"))
