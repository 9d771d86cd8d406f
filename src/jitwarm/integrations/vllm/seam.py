"""Where vLLM is changed: a worker's methods, so that ours runs before, beside and at its own warm-up.

    init_device                  before it: building begins (`early`)
    load_model                   beside it: keys are listed (`early`)
    determine_available_memory   before it: what is built is loaded (`early`)
    initialize_from_config       after it: the same, where nobody measured memory (`early`)
    compile_or_warm_up_model     before it: everything becomes warm (`warmup`)

The last runs before vLLM's own kernel warm-up, graph capture and the arming of its JIT monitor, on every kind of worker and with
both model runners. A worker's class is known late and importing its module early is dear, so two steps: `install`, in any process
at plugin load, wraps `WorkerWrapperBase.init_device`, whose module vLLM has imported by then; and `init_device`, in a worker,
wraps the methods of the worker's own class. So the elastic scale-up, which calls the worker directly, passes here as well.

All are found by what they have, not by version. Where one is missing, that is said once, and vLLM goes on without us.
"""

import functools
import importlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from jitwarm.integrations.vllm import not_active

_WRAPPER = ("vllm.v1.worker.worker_base", "WorkerWrapperBase", "init_device")
_WARM_UP = "compile_or_warm_up_model"
_MARK = "_jitwarm_wrapped"

Around = Callable[[Any, Callable[[], Any]], Any]


def install() -> None:
    """Wrap `WorkerWrapperBase.init_device`. Again is harmless, also right after a fork.

    Raises:
        ImportError, AttributeError: This vLLM has no such seam.
    """
    module, class_name, method_name = _WRAPPER
    _wrap(getattr(importlib.import_module(module), class_name), method_name, _around_init_device)


def _wrap(owner: type, name: str, around: Around) -> None:
    """Let `around(self, call)` stand for a method, once; `call()` is the method itself."""
    original = getattr(owner, name)
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(self, lambda: original(self, *args, **kwargs))

    setattr(method, _MARK, True)
    setattr(owner, name, method)


def _around_init_device(wrapper: Any, call: Callable[[], Any]) -> Any:
    worker = getattr(wrapper, "worker", None)
    worker_class = type(worker)
    if not hasattr(worker_class, _WARM_UP):
        not_active(f"{worker_class.__qualname__} has no {_WARM_UP}; kernels will compile when they are first used")
        return call()
    _wrap(worker_class, _WARM_UP, _around_warm_up)
    for name, around in _HEAD_START.items():
        if hasattr(worker_class, name):  # without, there is no head start
            _wrap(worker_class, name, around)
    if early := _module("early"):
        early.begin(worker)
    return call()


def _around_load(worker: Any, call: Callable[[], Any]) -> Any:
    begun = _begun(worker)
    with begun.loading() if begun else nullcontext():
        return call()


def _around_profile(worker: Any, call: Callable[[], Any]) -> Any:
    begun = _begun(worker)
    with begun.profiling() if begun else nullcontext():
        return call()


def _around_kv_cache(worker: Any, call: Callable[[], Any]) -> Any:
    result = call()
    if begun := _begun(worker):
        begun.before_kernels()
    return result


_HEAD_START: dict[str, Around] = {
    "load_model": _around_load,
    "determine_available_memory": _around_profile,
    "initialize_from_config": _around_kv_cache,
}


def _around_warm_up(worker: Any, call: Callable[[], Any]) -> Any:
    warmup = _module("warmup")
    if warmup is None:
        return call()
    watch = warmup.warm_worker(worker)
    with watch.accounting(worker):
        result = call()
    watch.after_start(worker)
    return result


def _begun(worker: Any) -> Any:
    early = _module("early")
    return early.of(worker) if early else None


def _module(name: str) -> Any:
    """A module that is needed in workers only, and not before; None where half an installation of ours lacks it."""
    try:
        return importlib.import_module(f"jitwarm.integrations.vllm.{name}")
    except Exception as exc:  # noqa: BLE001 - that is no reason not to start
        not_active(f"{type(exc).__name__}: {exc}")
        return None
