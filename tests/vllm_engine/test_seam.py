"""The seam in vLLM's real classes: found, set once, missed loudly. Each test has a process of its own, since it changes them."""

import kits
import pytest

pytestmark = pytest.mark.vllm

BEGIN = """
import logging
logging.basicConfig(format="%(message)s")
from vllm.v1.worker.worker_base import WorkerWrapperBase
from jitwarm.integrations.vllm import register
"""


@pytest.fixture
def run(tmp_path):
    """Run a program after `BEGIN`; what it printed, and what was logged."""

    def run(program, **variables):
        done = kits.python("-c", BEGIN + program, HOME=tmp_path, CUDA_VISIBLE_DEVICES="", **variables)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.split(), [line for line in done.stderr.splitlines() if line.startswith("jitwarm:")]

    return run


@pytest.mark.parametrize(("given", "is_set"), [("jitwarm", True), ("some_other_plugin", False), ("", False)])
def test_vllm_loads_us_unless_its_plugins_are_others(run, given, is_set):
    program = """
from vllm.plugins import load_general_plugins
load_general_plugins()
print(hasattr(WorkerWrapperBase.init_device, "__wrapped__"))
"""
    assert run(program, VLLM_PLUGINS=given) == ([str(is_set)], [])


def test_it_is_set_once_however_often_we_are_called(run):
    printed, told = run("""
register(); once = WorkerWrapperBase.init_device
register()
print(WorkerWrapperBase.init_device is once, once.__wrapped__.__qualname__)
""")
    assert (printed, told) == (["True", "WorkerWrapperBase.init_device"], [])


def test_nothing_heavy_is_imported(run):
    """vLLM's worker modules, its GPU stack and ours stay out."""
    printed, _ = run("""
import sys
before = set(sys.modules)
register()
print(*sorted(name for name in set(sys.modules) - before if not name.startswith("jitwarm")))
print(*sorted(name for name in sys.modules if name in ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.cpu_worker", "cutlass")))
""")
    assert printed == []


def test_a_vllm_without_the_seam_is_told_once_and_left_alone(run):
    printed, told = run("""
del WorkerWrapperBase.init_device
register()
print(sorted(set(vars(WorkerWrapperBase)) & {"init_device"}))
""")
    assert printed == ["[]"]
    assert len(told) == 1
    assert "not active" in told[0]
    assert "init_device" in told[0]


def test_a_worker_without_the_method_is_told_and_starts(run):
    _, told = run("""
class Worker:
    def init_device(self): print("started")

wrapper = WorkerWrapperBase()
wrapper.worker = Worker()
wrapper.vllm_config = object()
WorkerWrapperBase.init_device = lambda self: self.worker.init_device()  # vLLM's own asks for a whole configuration
register()
wrapper.init_device()
""")
    [line] = told
    assert "Worker has no compile_or_warm_up_model" in line


@pytest.mark.parametrize("worker", ["cpu_worker.CPUWorker", "gpu_worker.Worker", "xpu_worker.XPUWorker"])
def test_every_kind_of_worker_is_wrapped_once(run, worker):
    """The GPU worker cannot run here; that it would be wrapped is seen on the class."""
    module, name = worker.split(".")
    printed, told = run(f"""
from vllm.v1.worker.{module} import {name} as Worker
WorkerWrapperBase.init_device = lambda self: None
register()
for _ in range(2):
    wrapper = WorkerWrapperBase()
    wrapper.worker = object.__new__(Worker)
    wrapper.init_device()
method = Worker.compile_or_warm_up_model
print(method._jitwarm_wrapped, hasattr(method.__wrapped__, "_jitwarm_wrapped"))
""")
    assert (printed, told) == (["True", "False"], [])


@pytest.mark.parametrize("value", ["1", "all"])
def test_switched_off_nothing_is_touched(run, value):
    printed, told = run(
        "import os; register(); print(hasattr(WorkerWrapperBase.init_device, '__wrapped__'), os.environ.get('TRITON_CACHE_DIR'))",
        JITWARM_DISABLE=value,
        TRITON_CACHE_DIR=None,
    )
    assert (printed, told) == (["False", "None"], [])


def test_the_compilers_caches_lie_in_the_store_unless_somebody_said_otherwise(run, tmp_path):
    program = "import os; register(); print(os.environ['TRITON_CACHE_DIR'], os.environ['TILELANG_CACHE_DIR'])"
    given = {"JITWARM_CACHE_DIR": None, "XDG_CACHE_HOME": None, "TILELANG_CACHE_DIR": "/mine", "TRITON_CACHE_DIR": None}
    assert run(program, **given)[0] == [f"{tmp_path}/.cache/jitwarm/triton", "/mine"]


def test_an_armed_monitor_only_warns_of_our_own_compiles(run):
    printed, _ = run("""
from vllm.utils import jit_monitor
from jitwarm.integrations.vllm.warmup import _lenient_monitor
jit_monitor.activate(mode="error")
try:
    with _lenient_monitor():
        print(jit_monitor._mode)
        raise ValueError
except ValueError:
    print(jit_monitor._mode)
""")
    assert printed == ["warn", "error"]
