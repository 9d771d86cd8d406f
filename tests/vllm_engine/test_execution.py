"""The execution run, in a real engine: it happens in its place, finds what nobody declares, and leaves nothing behind."""

import os
import tomllib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import kits
import pytest
from engine_kit import IN_ONE_PROCESS

pytestmark = pytest.mark.vllm

SUPPORT = Path(__file__).parents[1] / "support"
STEPPING = {"worker_cls": "engine_worker.SteppingCPUWorker"}


def of_triton(started, name):
    return [event for event in started.all(name) if event["backend"] == "triton"]


@pytest.mark.timeout(1200)  # three starts
def test_what_only_a_step_compiles_is_listed_learned_and_gone_at_the_next_start(start_engine, site, tmp_path):
    plain = start_engine((), STEPPING, store="plain", JITWARM_EXECUTION_WARMUP="off", **IN_ONE_PROCESS)
    assert plain.all("execution_run") == plain.all("undeclared_compile") == []
    assert len(of_triton(plain, "unexpected_compile")) == 1  # while the request waits

    first = start_engine((), STEPPING, store="first", JITWARM_EXECUTION_WARMUP="on", **IN_ONE_PROCESS)
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

    second = start_engine(
        (), STEPPING, store="second", JITWARM_EXECUTION_WARMUP="on", JITWARM_LEARNED_KEYS=str(file), **IN_ONE_PROCESS
    )
    assert second.outcomes()["triton:learned"] == ["compiled"]
    assert of_triton(second, "undeclared_compile") == []
    assert second.answer["tokens"] == plain.answer["tokens"]


def test_a_step_that_raises_costs_the_run_and_not_the_engine(start_engine):
    """Sampled at random by the engine's own seed: nothing of the run is left, not even in the random numbers."""
    plain = start_engine(JITWARM_EXECUTION_WARMUP="off", **IN_ONE_PROCESS)
    failing = start_engine(
        (),
        {"worker_cls": "engine_worker.FailingCPUWorker"},
        store="failing",
        JITWARM_EXECUTION_WARMUP="on",
        **IN_ONE_PROCESS,
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


# --- the second model runner, which needs Triton on the device ---------------------------------------------------------


class StandInConnector:
    """A stand-in for the runner's KV connector; `is_disabled` is what it was told, in order."""

    def __init__(self):
        self.is_disabled = []

    def set_disabled(self, value):
        self.is_disabled.append(value)


class StandInWorker:
    """A stand-in for a worker with the second model runner: it executes nothing, and may raise at one of its steps."""

    def __init__(self, runner, fails_at=None):
        self.model_runner, self.fails_at, self.steps = runner, fails_at, []

    def execute_model(self, scheduled):
        self.steps.append(scheduled)
        if len(self.steps) == self.fails_at:
            raise RuntimeError("no more registers")

    def sample_tokens(self, grammar):
        del grammar


@pytest.fixture
def second_runner(monkeypatch):
    """A stand-in with what vLLM's own `warmup_kernels` looks at."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    from vllm.v1.kv_cache_interface import FullAttentionSpec
    from vllm.v1.worker.gpu.model_runner import GPUModelRunner

    spec = FullAttentionSpec(block_size=16, num_kv_heads=2, head_size=64, dtype=torch.float32)
    runner = object.__new__(type("StandInRunner", (GPUModelRunner,), {}))
    vars(runner).update(
        adaptive_verification=None, rejection_sampler=None, num_speculative_steps=0, decode_query_len=1, is_pooling_model=False,
        vllm_config=SimpleNamespace(is_mm_encoder_only=False, num_lookahead_tokens=0), max_model_len=128,
        model_state=SimpleNamespace(), is_encoder_decoder=False, block_tables=None, kv_block_zeroer=None, is_last_pp_rank=True,
        kv_cache_config=SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec)], num_blocks=100),
        scheduler_config=SimpleNamespace(max_num_seqs=4, max_num_batched_tokens=128),
        model_config=SimpleNamespace(get_vocab_size=lambda: 512), kv_connector=StandInConnector(),
    )  # fmt: skip
    return runner


@pytest.mark.parametrize("fails_at", [None, 2])
def test_the_second_model_runner_is_warmed_by_vllms_own_function_and_left_clean(second_runner, fails_at):
    from jitwarm.integrations.vllm.execution import execute

    worker = StandInWorker(second_runner, fails_at)
    with pytest.raises(RuntimeError) if fails_at else nullcontext():
        assert execute(worker) == 4
    first, last = worker.steps[0], worker.steps[-1]
    assert last.finished_req_ids == {request.req_id for request in first.scheduled_new_reqs}
    assert len(last.finished_req_ids) == 4
    assert second_runner.kv_connector.is_disabled[0] is True
    assert second_runner.kv_connector.is_disabled[-1] is False
