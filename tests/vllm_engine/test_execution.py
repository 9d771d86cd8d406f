"""The execution run, in a real engine: it happens in its place, finds what nobody declares, and leaves nothing behind."""

import os
import tomllib
from pathlib import Path

import kits
import pytest

pytestmark = pytest.mark.vllm

SUPPORT = Path(__file__).parents[1] / "support"
STEPPING = {"worker_cls": "engine_worker.SteppingCPUWorker"}


def of_triton(started, name):
    return [event for event in started.all(name) if event["backend"] == "triton"]


@pytest.mark.timeout(1200)  # three starts
def test_what_only_a_step_compiles_is_listed_learned_and_gone_at_the_next_start(start_engine, site, tmp_path):
    plain = start_engine((), STEPPING, store="plain", JITWARM_EXECUTION_WARMUP="off")
    assert plain.all("execution_run") == plain.all("undeclared_compile") == []
    assert len(of_triton(plain, "unexpected_compile")) == 1  # while the request waits

    first = start_engine((), STEPPING, store="first", JITWARM_EXECUTION_WARMUP="on")
    names = [event["event"] for event in first.workers[0]]
    order = ["run_end", "undeclared_compile", "execution_run", "monitor_armed", "first_token"]
    assert sorted(order, key=names.index) == order
    [run] = first.all("execution_run")
    assert (run["by"], run["status"], run["n"]) == ("jitwarm", "done", 4)
    [found] = of_triton(first, "undeclared_compile")
    assert (found["function"], found["differences"]) == ("alpha_kernels:scale", ["BLOCK: 64 -> 256"])
    assert found["during"] == "the execution run"
    assert of_triton(first, "unexpected_compile") == []
    assert first.answer["tokens"] == plain.answer["tokens"]
    assert any("alpha:Scale" in line and "compiled during the execution run" in line for line in first.lines)

    file = tmp_path / "jitwarm.lock.toml"
    printed = kits.python(
        "-m", "jitwarm", "learn", first.store, "--out", file,
        JITWARM_CACHE_DIR=first.store, JITWARM_PLUGINS="alpha,beta", PYTHONPATH=os.pathsep.join([str(site), str(SUPPORT)]),
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    functions = [entry["function"] for entry in tomllib.loads(file.read_text())["function"]]
    assert "alpha_kernels:scale" in functions

    second = start_engine((), STEPPING, store="second", JITWARM_EXECUTION_WARMUP="on", JITWARM_LEARNED_KEYS=str(file))
    assert second.outcomes()["triton:learned"] == ["compiled"]
    assert of_triton(second, "undeclared_compile") == []
    assert second.answer["tokens"] == plain.answer["tokens"]


def test_a_step_that_raises_costs_the_run_and_not_the_engine(start_engine):
    """Sampled at random by the engine's own seed: nothing of the run is left, not even in the random numbers."""
    plain = start_engine(JITWARM_EXECUTION_WARMUP="off")
    failing = start_engine(
        (), {"worker_cls": "engine_worker.FailingCPUWorker"}, store="failing", JITWARM_EXECUTION_WARMUP="on"
    )
    [run] = failing.all("execution_run")
    assert (run["status"], run["error"]) == ("failed", "RuntimeError: no more registers")
    [line] = [line for line in failing.lines if "execution run failed" in line]
    assert line.startswith("the execution run failed")
    assert line.endswith("RuntimeError: no more registers")
    assert failing.answer["tokens"] == plain.answer["tokens"]
    assert len(failing.all("first_token")) == 1


def test_every_rank_takes_part(start_engine):
    started = start_engine(
        (), {**STEPPING, "tensor_parallel_size": 2}, JITWARM_EXECUTION_WARMUP="on",
        VLLM_CPU_OMP_THREADS_BIND="0|1", VLLM_CPU_NUM_OF_RESERVED_CPU="0",
    )  # fmt: skip
    assert len(started.answer["tokens"]) == 3
    runs = [(event["rank"], event["status"], event["n"]) for event in started.all("execution_run")]
    assert sorted(runs) == [(0, "done", 4), (1, "done", 4)]
    functions = {event["function"] for event in started.all("undeclared_compile")}
    assert "alpha_kernels:scale" in functions
    assert of_triton(started, "unexpected_compile") == []
