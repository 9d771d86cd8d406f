"""The one place where vLLM is changed: a worker's `compile_or_warm_up_model` begins with our warm-up.

That method runs before vLLM's own kernel warm-up, graph capture and the arming of its JIT monitor, on every kind of worker and
with both model runners. Its class is known late and importing its module early is dear, so two steps: `install`, in any process
at plugin load, wraps `WorkerWrapperBase.init_device`, whose module vLLM has imported by then; and `init_device`, in a worker,
wraps the method of the worker's own class. So the elastic scale-up, which calls the worker directly, passes here as well.

Both are found by what they have, not by version. Where one is missing, that is said once, and vLLM goes on without us.
"""

import functools
import importlib
from typing import Any

from jitwarm.integrations.vllm import not_active

_WRAPPER = ("vllm.v1.worker.worker_base", "WorkerWrapperBase", "init_device")
_METHOD = "compile_or_warm_up_model"
_MARK = "_jitwarm_wrapped"


def install() -> None:
    """Wrap `WorkerWrapperBase.init_device`. Again is harmless, also right after a fork.

    Raises:
        ImportError, AttributeError: This vLLM has no such seam.
    """
    module, class_name, method_name = _WRAPPER
    wrapper_class = getattr(importlib.import_module(module), class_name)
    original = getattr(wrapper_class, method_name)
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def init_device(self: Any, *args: Any, **kwargs: Any) -> Any:
        _wrap_worker(self)
        return original(self, *args, **kwargs)

    setattr(init_device, _MARK, True)
    setattr(wrapper_class, method_name, init_device)


def _wrap_worker(wrapper: Any) -> None:
    """Wrap the warm-up method of the class of this wrapper's worker, once."""
    worker_class = type(getattr(wrapper, "worker", None))
    original = getattr(worker_class, _METHOD, None)
    if original is None:
        not_active(f"{worker_class.__qualname__} has no {_METHOD}; kernels will compile when they are first used")
        return
    if getattr(original, _MARK, False):
        return

    @functools.wraps(original)
    def compile_or_warm_up_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            from jitwarm.integrations.vllm import warmup  # noqa: PLC0415 - in workers only, and not before they warm up
        except Exception as exc:  # noqa: BLE001 - half an installation of ours is no reason not to start
            not_active(f"{type(exc).__name__}: {exc}")
            return original(self, *args, **kwargs)
        watch = warmup.warm_worker(self)
        with watch.accounting(self):
            result = original(self, *args, **kwargs)
        watch.after_start(self)
        return result

    setattr(compile_or_warm_up_model, _MARK, True)
    setattr(worker_class, _METHOD, compile_or_warm_up_model)
