"""vLLM's own registry of kernels, taken over: real classes of vLLM, real compiles. It runs no warm-up on a CPU, so the
registries are made here, as vLLM's model runner makes them."""

import sys
import types
from pathlib import Path

import pytest

from jitwarm import Target, WarmupConfig
from jitwarm.integrations.vllm import adoption
from jitwarm.integrations.vllm.adoption import take_over
from jitwarm.registry import Registry
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

pytestmark = pytest.mark.vllm


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "packages"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    import vllm_style_kernels

    yield vllm_style_kernels
    sys.modules.pop("vllm_style_kernels")


@pytest.fixture
def registry(kernels):
    """A registry of vLLM's, with what the kernels of one model would register."""
    from vllm.model_executor.warmup.jit_warmup import JitWarmupRegistry

    return JitWarmupRegistry({"values": (5, 6)})


@pytest.fixture
def run(tmp_path, registry):
    """Take the registry over and warm up; the session afterwards."""

    def run():
        events = []
        session = Session(
            Asked(WarmupConfig(), Settings(plugins=(), key_timeout_s=120)),
            Target("cuda", "90"),
            root=tmp_path / "store",
            listeners=[events.append],
        )
        session.n_taken = take_over(registry, session.registry)
        session.run(session.plan("vllm:*"))
        session.seen = events
        return session

    return run


def rows(session, name):
    return [(row.label, row.outcome) for row in session.report.kernels[name].rows]


def test_registered_kernels_become_rows_and_leave_vllms_registry(run, registry, kernels):
    with registry.activate():
        kernels.FILL.register_warmup(values=(1, 2))
        kernels.FILL.register_warmup(values=(2, 3))
    session = run()
    assert session.n_taken == 1
    keys = [("value=2", "compiled"), ("value=4", "compiled"), ("value=6", "compiled")]
    assert rows(session, "vllm:vllm_style_kernels.FILL") == keys
    assert len(registry) == 0
    registry.warmup()  # vLLM's own: nothing is left to compile
    children = [event for event in session.seen if event["event"] == "built_in_child"]
    assert len(children) == 3  # an adopted kernel is imported by a compile process, from where it is


def test_a_registration_without_arguments_gets_vllms_configuration(run, registry, kernels):
    with registry.activate():
        kernels.FILL.register_warmup()
    assert [label for label, _ in rows(run(), "vllm:vllm_style_kernels.FILL")] == ["value=10", "value=12"]


def test_one_that_fails_costs_itself_only(run, registry, kernels):
    """vLLM's own warm-up ends with the first that fails, and the start with it."""
    with registry.activate():
        kernels.FAILING.register_warmup()
        kernels.FILL.register_warmup(values=(1,))
    session = run()
    assert rows(session, "vllm:vllm_style_kernels.FAILING") == [("value=10", "failed"), ("value=12", "failed")]
    assert rows(session, "vllm:vllm_style_kernels.FILL") == [("value=2", "compiled")]


def test_a_key_without_canonical_text_is_compiled_in_this_process(run, registry, kernels):
    with registry.activate():
        kernels.OPAQUE.register_warmup(values=(8,))
    session = run()
    [(_, outcome)] = rows(session, "vllm:vllm_style_kernels.OPAQUE")
    assert outcome == "compiled"
    [compiled] = [event for event in session.seen if event["event"] == "compile"]
    assert "built_in_child" not in {event["event"] for event in session.seen}
    assert compiled["n"] == 1


@pytest.mark.parametrize("strange", [[], {"kernel": [((), {})]}, {"kernel": "rows"}, None])
def test_a_registry_that_looks_strange_is_left_alone(registry, strange):
    registry._registrations = strange
    assert take_over(registry, Registry()) == 0
    assert registry._registrations == strange


def test_a_second_warmup_of_a_worker_adopts_the_same_kernels_and_new_ones(registry, kernels):
    """Elastic scale-up: vLLM does not register again what it registered when the model was made."""
    with registry.activate():
        kernels.FILL.register_warmup(values=(1,))
    assert take_over(registry, Registry()) == 1
    with registry.activate():
        kernels.FILL.register_warmup(values=(2,))
        kernels.OPAQUE.register_warmup(values=(8,))
    assert take_over(registry, Registry()) == 2
    assert len(registry) == 0
    adoption.hand_back(registry)
    assert [len(rows) for rows in registry._registrations.values()] == [2, 1]


@pytest.fixture
def worker(registry, kernels, monkeypatch):
    """Stands for a GPU worker, which cannot be here; its registry is vLLM's own."""
    monkeypatch.setattr(adoption, "_is_cpu", lambda: False)
    with registry.activate():
        kernels.FILL.register_warmup(values=(1,))
    return types.SimpleNamespace(
        model_runner=types.SimpleNamespace(jit_warmup_registry=registry),
        vllm_config=types.SimpleNamespace(kernel_config=types.SimpleNamespace(enable_jit_warmup=True)),
    )


def test_without_jit_warmup_vllm_keeps_its_kernels(worker, registry):
    worker.vllm_config.kernel_config.enable_jit_warmup = False
    with adoption.adopted(worker, Registry()) as n_kernels:
        assert n_kernels == 0
    assert len(registry) == 1


def test_on_a_cpu_vllm_keeps_its_kernels(worker, registry, monkeypatch):
    monkeypatch.undo()  # this is a CPU
    with adoption.adopted(worker, Registry()) as n_kernels:
        assert n_kernels == 0
    assert len(registry) == 1


def test_where_our_warmup_fails_vllm_gets_its_kernels_back(worker, registry):
    def warm_up():
        with adoption.adopted(worker, Registry()) as n_kernels:
            assert (n_kernels, len(registry)) == (1, 0)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        warm_up()
    assert len(registry) == 1
