"""The account and the decision of an execution run: needs no vLLM. `tests/vllm_engine` has both in a real engine."""

import logging
import types
from contextlib import contextmanager

import kits
import pytest

from jitwarm import Backend, Target, WarmupConfig
from jitwarm.contract.backend import Seen
from jitwarm.errors import UnexpectedCompileError
from jitwarm.integrations.vllm.execution import Execution
from jitwarm.monitor import Monitor
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings


class Bench(Backend):
    """A third party's backend that is told what it compiles."""

    name = "bench"

    def __init__(self):
        self.listeners = []

    @contextmanager
    def watch(self, see):
        self.listeners.append(see)
        try:
            yield
        finally:
            self.listeners.remove(see)

    def compile(self, function="pkg:f", what="compile"):
        for see in list(self.listeners):
            see(Seen(self.name, what, function, {"BLOCK": "64"}, 0.5, replay="how to make it"))


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def events():
    return []


@pytest.fixture
def monitor(bench, events):
    """A monitor of ours; `records` is what it wrote down."""

    def monitor(mode="warn", record=None):
        emit = lambda event, **fields: events.append({"event": event, **fields})  # noqa: E731
        return Monitor([bench], emit, mode=mode, record=record)

    return monitor


def of(events, name):
    return [event for event in events if event["event"] == name]


@pytest.mark.parametrize("mode", ["off", "warn", "error", "record"])
def test_before_anything_is_served_a_compile_is_told_and_recorded_and_never_raises(bench, events, monitor, mode):
    records = []
    ours = monitor(mode, lambda event, replay: records.append((event["function"], replay)))
    with ours.accounting("vLLM's warm-up"):
        bench.compile()
        bench.compile("pkg:g", what="tuning")
        bench.compile("pkg:h", what="reload")
    bench.compile("pkg:late")
    told = [(event["function"], event["during"]) for event in of(events, "undeclared_compile")]
    assert told == [("pkg:f", "vLLM's warm-up"), ("pkg:g", "vLLM's warm-up")]
    assert records == [("pkg:f", "how to make it"), ("pkg:g", "how to make it")]
    assert of(events, "unexpected_compile") == of(events, "monitor_armed") == []
    assert ours.n_unexpected == 0


def test_what_compiles_later_is_unexpected_again(bench, events, monitor):
    ours = monitor("error")
    with ours.accounting("vLLM's warm-up"):
        bench.compile()
    with ours, pytest.raises(UnexpectedCompileError):
        bench.compile()
    assert [event["event"] for event in events if "compile" in event["event"]] == [
        "undeclared_compile",
        "unexpected_compile",
    ]


def test_a_store_that_cannot_be_written_is_told_once(bench, events, monitor):
    def record(*_):
        raise OSError(28, "No space left on device")

    with monitor(record=record).accounting("vLLM's warm-up"):
        bench.compile()
        bench.compile("pkg:g")
    assert len(of(events, "undeclared_compile")) == 2
    assert len(of(events, "record_failed")) == 1


# --- whether there is a run --------------------------------------------------------------------------------------------


class StandInWorker:
    """A stand-in for a worker of vLLM, up to its first step. `executes` is how often its own warm-up executes."""

    def __init__(self, executes=0, **config):
        self.executes = executes
        model = types.SimpleNamespace(is_encoder_decoder=config.pop("is_encoder_decoder", False))
        self.vllm_config = types.SimpleNamespace(model_config=model, **config)
        self.model_runner = types.SimpleNamespace(kv_cache_config=object())
        self.n_steps = 0

    def execute_model(self, scheduled):
        self.n_steps += 1

    def sample_tokens(self, grammar):
        raise AssertionError("nothing is executed here")

    def compile_or_warm_up_model(self):
        for _ in range(self.executes):
            self.execute_model(None)


@pytest.fixture
def start(tmp_path, monkeypatch, monitor, events, caplog):
    """A worker's start after our warm-up: the event that says how the execution run ended."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    caplog.set_level(logging.INFO, "vllm.jitwarm")

    def start(worker, setting, *, is_serving=False):
        events.clear()
        asked = Asked(WarmupConfig(), Settings(plugins=(), execution_warmup=setting))
        session = Session(asked, Target("cuda", "90"), root=tmp_path / "store", listeners=[events.append])
        execution = Execution(session, monitor())
        with execution.accounting(worker):
            worker.compile_or_warm_up_model()
        execution.run(worker, is_serving=is_serving)
        assert "execute_model" not in vars(worker)
        return of(events, "execution_run")

    return start


@pytest.mark.parametrize("setting", ["auto", "on"])
def test_where_vllm_executes_by_itself_it_is_accounted_for_and_not_done_again(start, setting):
    worker = StandInWorker(executes=4)
    [run] = start(worker, setting)
    assert (run["by"], run["status"], run["n"]) == ("vllm", "done", 4)
    assert worker.n_steps == 4


def test_nothing_runs_that_was_not_asked_for(start, caplog):
    assert start(StandInWorker(), "off") == []
    [run] = start(StandInWorker(), "auto")
    assert (run["by"], run["status"]) == (None, "not_run")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"is_encoder_decoder": True}, "encoder"),
        ({"is_mm_encoder_only": True}, "encoder"),
        ({"ec_transfer_config": object()}, "another engine"),
        ({"kv_transfer_config": object()}, "KV connector"),
    ],
)
def test_what_cannot_be_executed_is_told_with_the_reason(start, caplog, config, why):
    [run] = start(StandInWorker(**config), "on")
    assert run["status"] == "not_run"
    assert why in run["why"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_while_other_ranks_are_serving_there_is_no_run(start, monkeypatch):
    assert "scaled" in start(StandInWorker(), "on", is_serving=True)[0]["why"]
    known = StandInWorker(kv_transfer_config=object())
    assert "scaled" not in start(known, "on")[0]["why"]
    assert "scaled" in start(known, "on")[0]["why"]
    monkeypatch.setenv("VLLM_ELASTIC_EP_SCALE_UP_LAUNCH", "1")
    assert "scaled" in start(StandInWorker(), "on")[0]["why"]


def test_a_worker_that_executes_in_another_way_is_left_alone(start):
    for runner in (None, types.SimpleNamespace(kv_cache_config=None)):
        worker = StandInWorker()
        worker.model_runner = runner
        assert "not known here" in start(worker, "on")[0]["why"]


def test_the_setting_is_read_from_the_environment():
    done = kits.python(
        "-c",
        "from jitwarm.settings import read; print(read().settings.execution_warmup)",
        JITWARM_EXECUTION_WARMUP="ON",
    )
    assert done.stdout == "on\n", done.stderr
