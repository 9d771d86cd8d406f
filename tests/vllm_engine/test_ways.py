"""Each way in which vLLM starts its workers, in a real engine: the head start and the warm-up come along, no key twice."""

import json
from collections import Counter
from pathlib import Path

import pytest
from engine_kit import MODEL, environment
from kits import install
from serving import Server

from jitwarm.reports.folding import read_starts

pytestmark = pytest.mark.vllm

ON_TWO_CORES = {"VLLM_CPU_OMP_THREADS_BIND": "0|1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
SUPPORT = Path(__file__).parents[1] / "support"
KERNELS = {"alpha:Scale", "alpha:first_rank_only", "beta:PerHead", "beta:of_this_model"}
WARM = {"compiled", "loaded", "already_warm"}


def compiles(started):
    """How often each key was really compiled, by whomever."""
    return Counter((event["kernel"], event["key"]) for event in started.all("compile"))


def test_pipeline_stages_are_warmed_each_with_its_own_layers(start_engine):
    """Only the start: of vLLM's CPU build 0.32 the second stage fails at the first request, with or without us."""
    started = start_engine(llm={"pipeline_parallel_size": 2}, n_tokens=0, JITWARM_EARLY=None, **ON_TWO_CORES)
    assert started.answer["tokens"] == []
    assert [config["config"]["pp_rank"] for config in started.all("config") if config["config"]["has_layers"]] == [0, 1]
    assert len(started.all("early_start")) == 2
    for rank in (0, 1):
        outcomes = started.outcomes(rank)
        assert set(outcomes) == KERNELS
        assert {outcome for found in outcomes.values() for outcome in found} <= WARM
    assert set(compiles(started).values()) == {1}
    [start] = read_starts([], started.store)
    assert start.is_warm


def test_workers_that_ray_places_are_warmed(start_engine, site):
    install(site, "ray_cpu", (SUPPORT / "ray_cpu.py").read_text(), group="vllm.platform_plugins", attribute="platform")
    started = start_engine(
        llm={"tensor_parallel_size": 2, "distributed_executor_backend": "ray"},
        JITWARM_EARLY=None,
        RAY_OVERRIDE_RESOURCES='{"GPU": 2}',
        **ON_TWO_CORES,
    )
    assert len(started.answer["tokens"]) == 3
    assert len(started.all("early_start")) == len(started.workers) == 2
    for rank in (0, 1):
        outcomes = started.outcomes(rank)
        assert set(outcomes) == KERNELS
        assert {
            outcome for kernel, found in outcomes.items() for outcome in found if kernel != "alpha:first_rank_only"
        } <= WARM
    assert set(compiles(started).values()) == {1}


def test_a_second_model_in_the_same_process_is_warmed_as_well(start_engine, tmp_path):
    """Its head size is another one; what both ask for is warm already."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({**MODEL, "head_dim": 32}))
    started = start_engine(then={"model": str(other)}, JITWARM_EARLY=None, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    assert len(started.answer["tokens"]) == 6
    starts = [event for event in started.all("run_start") if not event["role"]]
    assert len(starts) == len(started.all("early_start")) == 2
    heads = [json.loads(event["key"])["head"] for event in started.all("compile") if event["kernel"] == "beta:PerHead"]
    assert sorted(heads) == [["int", "32"], ["int", "64"]]
    assert set(compiles(started).values()) == {1}


def test_a_new_engine_of_an_elastic_scale_up_loads_what_is_built_before_vllm_launches_kernels(start_engine):
    """It measures no memory. What was declared does not compile then; what was not is told."""
    started = start_engine(
        llm={"worker_cls": "loading_worker.ElasticCPUWorker"},
        JITWARM_EARLY=None,
        LOADING="until 3",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )
    assert len(started.answer["tokens"]) == 3
    [worker] = started.workers
    names = [event["event"] for event in worker]
    assert not [event for event in worker if event.get("phase") == "memory profile"]
    assert names.index("loaded_early") < names.index("undeclared_compile") < names.index("run_start")
    [told] = started.all("undeclared_compile")
    assert told["function"].endswith("scale")
    assert "BLOCK" in json.dumps(told["differences"])
    assert set(compiles(started).values()) == {1}
    assert set(started.outcomes()) == KERNELS


def test_replicas_of_a_data_parallel_server_share_one_build(tmp_path, site):
    """vLLM makes an engine of each; a dense model's replicas know nothing of each other."""
    model, store = tmp_path / "model", tmp_path / "store"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(MODEL))
    info = site / "vllm-0.32.0.dist-info"  # its command line asks for metadata that the CPU build lacks
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    environ = environment(tmp_path, site, store) | {"JITWARM_EARLY": "1", **ON_TWO_CORES}
    server = Server(model, tmp_path / "log", environ, "--data-parallel-size", "2")
    try:
        server.await_health()
    finally:
        server.end()
    events = [
        [json.loads(line) for line in file.read_text().splitlines()] for file in (store / "events").glob("*/*.jsonl")
    ]
    workers = [
        found for found in events if any(event["event"] == "run_start" for event in found) and "rank" in found[0]
    ]
    assert len(workers) == 2
    for worker in workers:
        outcomes = {(event["kernel"], event["outcome"]) for event in worker if event["event"] == "key_end"}
        assert {kernel for kernel, _ in outcomes} == KERNELS
        assert {outcome for _, outcome in outcomes} <= WARM
    built = Counter((e["kernel"], e["key"]) for found in events for e in found if e["event"] == "compile")
    assert set(built.values()) == {1}
