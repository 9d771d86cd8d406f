"""The head start in a real engine: what is compiled while the weights load, what the warm-up then has left, and what can fail."""

import json
import os
import signal
from collections import Counter

import pytest
from processes import marked, wait_until
from serving import Process

from jitwarm.reports.folding import read_starts

pytestmark = pytest.mark.vllm

LOADING = {"worker_cls": "loading_worker.LoadingCPUWorker"}
EXAMPLE = {"extra": {"example": {"intermediate_sizes": [256], "gemm_shapes": [[512, 256]], "hidden_sizes": [256]}}}
TP2 = {"tensor_parallel_size": 2}
ON_TWO_CORES = {"VLLM_CPU_OMP_THREADS_BIND": "0|1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
# What follows from the configuration alone; two of `beta`'s kernels ask for the live model.
OF_CONFIGURATION = {"alpha:Scale", "alpha:first_rank_only"}
OF_MODEL = {"beta:PerHead", "beta:of_this_model"}
# With `gamma`, whose key takes the builder seconds.
LONG = {"JITWARM_EARLY": None, "JITWARM_PLUGINS": "alpha,beta,gamma"}


def compiles(started):
    """How often each key was really compiled, by whomever."""
    return Counter((event["kernel"], event["key"]) for event in started.all("compile"))


def at(events, name, **fields):
    """When something happened first, in one process."""
    return next(event["mono_ns"] for event in events if event["event"] == name and fields.items() <= event.items())


def test_what_the_configuration_decides_is_compiled_while_the_weights_load(start_engine, tmp_path):
    """All three DSLs. It is loaded before vLLM measures its memory, and the warm-up has the model's own keys left."""
    started = start_engine(
        llm={**LOADING, "additional_config": {"jitwarm": EXAMPLE}},
        JITWARM_EARLY=None, JITWARM_PLUGINS=None, LOADING="until 9",
    )  # fmt: skip
    assert len(started.answer["tokens"]) == 3
    [rank] = started.workers
    seam = at(rank, "run_start")
    times = [
        at(rank, "early_start"), at(rank, "phase_start", phase="load model"), at(rank, "phase_end", phase="load model"),
        at(rank, "phase_start", phase="early load"), at(rank, "loaded_early"), at(rank, "phase_start", phase="memory profile"),
        at(rank, "phase_end", phase="memory profile"), seam, at(rank, "phase_end", phase="warmup"),
    ]  # fmt: skip
    assert times == sorted(times)

    # The plugins of the builder, the early plan and the warm-up know the model, and where its own configuration is.
    assert {event["config"]["model"] for event in started.all("config")} == {str(tmp_path / "model")}
    outcomes = started.outcomes()
    early = {kernel for kernel in outcomes if kernel in OF_CONFIGURATION or kernel.startswith(("example:", "gamma:"))}
    assert early | OF_MODEL == set(outcomes)
    assert {outcome for kernel in early for outcome in outcomes[kernel]} <= {"already_warm", "loaded"}
    assert {outcome for kernel in OF_MODEL for outcome in outcomes[kernel]} == {"compiled"}
    assert set(compiles(started).values()) == {1}
    assert {event["kernel"] for event in started.all("compile") if event["mono_ns"] > seam} == OF_MODEL

    [start] = read_starts([], started.store)
    assert start.is_warm
    assert start.hidden_s > 0
    assert {key.kernel for key in start.keys.values() if key.outcome == "compiled"} == OF_MODEL
    assert not start.incidents or {incident.event for incident in start.incidents} == {"local"}


LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "num_hidden_layers": 10,
}


def test_weights_that_are_there_are_loaded_while_it_builds(start_engine, tmp_path):
    """A few hundred megabytes from a file, in the engine's own process, twice: the second start compiles nothing."""
    for start in (1, 2):
        started = start_engine(
            llm={"load_format": "safetensors"}, architecture=LARGE, weights=True,
            JITWARM_EARLY=None, VLLM_ENABLE_V1_MULTIPROCESSING="0", JITWARM_RUN_ID=f"start-{start}",
        )  # fmt: skip
        assert len(started.answer["tokens"]) == 3
        assert set(started.outcomes()) == OF_CONFIGURATION | OF_MODEL
    assert set(compiles(started).values()) == {1}
    [second] = read_starts(["start-2"], started.store)
    assert second.is_warm
    assert second.n_compiles == 0
    assert (tmp_path / "model" / "model.safetensors").stat().st_size > 200e6


@pytest.mark.parametrize("fork", [False, True])
def test_of_two_ranks_one_builds_and_both_are_warm(start_engine, fork):
    """The weights are there at once: the warm-up begins in the middle, and nothing is compiled twice."""
    started = start_engine(llm=TP2, fork=fork, JITWARM_EARLY=None, **ON_TWO_CORES)
    assert len(started.workers) == 2
    assert len(started.all("early_start")) == 2
    assert set(compiles(started).values()) == {1}
    for rank in (0, 1):
        outcomes = started.outcomes(rank)
        assert set(outcomes) == OF_CONFIGURATION | OF_MODEL
        warm = {kernel: set(found) <= {"compiled", "loaded", "already_warm"} for kernel, found in outcomes.items()}
        assert warm == {**dict.fromkeys(outcomes, True), "alpha:first_rank_only": rank == 0}


def test_a_builder_that_is_killed_costs_nothing_but_time(start_engine):
    started = start_engine(llm=LOADING, LOADING="kill 1", **LONG)
    assert len(started.answer["tokens"]) == 3
    assert set(started.outcomes()) == OF_CONFIGURATION | OF_MODEL | {"gamma:Fill"}
    assert {outcome for found in started.outcomes().values() for outcome in found} <= {
        "compiled",
        "loaded",
        "already_warm",
    }
    [start] = read_starts([], started.store)
    assert start.is_warm


@pytest.mark.parametrize("loading", ["fail 1", pytest.param("die 1", marks=pytest.mark.soak)])
def test_when_the_weights_cannot_be_loaded_nothing_of_ours_goes_on(start_engine, monkeypatch, loading):
    started = start_engine(llm=LOADING, LOADING=loading, **LONG)
    assert "error" in started.answer
    monkeypatch.setenv("JITWARM_CACHE_DIR", str(started.store))
    wait_until(lambda: not marked("JITWARM_CACHE_DIR"), "builder, mothers and workers are gone")
    for manifest in started.store.glob("manifest/*.json"):
        assert all((started.store / name).is_file() for name in json.loads(manifest.read_text())["files"])


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
def test_an_engine_that_is_interrupted_while_it_loads_leaves_nothing_of_ours(
    prepare_engine, tmp_path, monkeypatch, number
):
    """Ctrl-C in a terminal, a supervisor that ends a whole group: the builder, in a session of its own, gets neither.

    Some of vLLM's own processes stay for a while, with or without us.
    """
    command, environ = prepare_engine(llm=LOADING, LOADING="until 99", **LONG)
    engine = Process(command, tmp_path / "log", environ)
    monkeypatch.setenv("JITWARM_CACHE_DIR", environ["JITWARM_CACHE_DIR"])
    try:
        engine.wait_until(lambda: list((tmp_path / "store").glob("manifest/*.json")), "the first key is built")
        os.killpg(engine.process.pid, number)
        wait_until(
            lambda: not [line for line in marked("JITWARM_CACHE_DIR").values() if " -m jitwarm." in line],
            "builder, mothers and workers are gone", 90,
        )  # fmt: skip
    finally:
        engine.end()
    for manifest in (tmp_path / "store").glob("manifest/*.json"):
        assert all((tmp_path / "store" / name).is_file() for name in json.loads(manifest.read_text())["files"])


def test_gpu_code_that_comes_late_is_counted_and_can_be_limited(start_engine):
    """What was there before the memory was measured is not late."""
    started = start_engine(
        llm=LOADING,
        JITWARM_EARLY=None,
        LOADING="until 3",
        JITWARM_MAX_LATE_MODULE_BYTES="1",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )
    outcomes = started.outcomes()
    assert {outcome for kernel in OF_CONFIGURATION for outcome in outcomes[kernel]} <= {"already_warm", "loaded"}
    assert outcomes["beta:PerHead"] == ["skipped"]
    [counted] = started.all("modules_late")
    assert counted["bytes"] == 0
    assert any("JITWARM_MAX_LATE_MODULE_BYTES" in (event.get("error") or "") for event in started.all("key_end"))
