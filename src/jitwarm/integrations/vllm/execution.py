"""The execution run and its account: what a worker compiles that no plugin declares, found before the first request does.

Two things, in this order. While vLLM's own warm-up runs, every compile is told as `undeclared_compile`. After it, if the
settings ask for it and vLLM has run none, a prefill and a decode step go through the worker's own `execute_model` and
`sample_tokens`, under the same account. The list of these compiles is what is left to declare.

All ranks of an engine meet inside a step. So whether there is one is decided from what all of them know alike, and the steps of a
run are the same on each of them.
"""

import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from jitwarm.errors import text_of
from jitwarm.integrations.vllm import complain
from jitwarm.integrations.vllm.steps import Requests
from jitwarm.monitor import Monitor
from jitwarm.session import Session

VLLM_WARMUP, EXECUTION_RUN = "vLLM's warm-up", "the execution run"
_V2_RUNNER = "vllm.v1.worker.gpu.model_runner"
_V2_WARMUP = "vllm.v1.worker.gpu.warmup"
_SCALE_UP = "VLLM_ELASTIC_EP_SCALE_UP_LAUNCH"
# Workers that have been through this; a second time they are serving already, and other ranks are not with them.
_STARTED: "weakref.WeakSet[Any]" = weakref.WeakSet()


class Execution:
    """One worker's execution run.

    Args:
        session: The run whose log tells of it.
        monitor: Ours, not armed: it knows what is warm.
    """

    def __init__(self, session: Session, monitor: Monitor) -> None:
        self._setting = session.asked.settings.execution_warmup
        self._emit = session.log.emit
        self._monitor = monitor
        self._n_steps_of_vllm = 0

    @contextmanager
    def accounting(self, worker: Any) -> Iterator[None]:
        """Entered around the worker's own warm-up."""
        if self._setting == "off":
            yield
            return
        with self._monitor.accounting(VLLM_WARMUP), self._counting_steps(worker):
            yield

    @contextmanager
    def _counting_steps(self, worker: Any) -> Iterator[None]:
        """Seen, not assumed: a warm-up of vLLM's that executes does so through this method, in every version that has one."""
        original, was_own = getattr(worker, "execute_model", None), "execute_model" in vars(worker)

        def execute_model(*args: Any, **kwargs: Any) -> Any:
            self._n_steps_of_vllm += 1
            return original(*args, **kwargs)  # type: ignore[misc]  # it is set only where there is one

        if original is not None:
            worker.execute_model = execute_model
        try:
            yield
        finally:
            if was_own:
                worker.execute_model = original
            elif original is not None:
                del worker.execute_model

    def run(self, worker: Any, *, is_serving: bool) -> None:
        """Execute the steps, if there is to be a run. Never raises: a failure is one warning and an event.

        Args:
            worker: vLLM's worker, when its own warm-up is over.
            is_serving: Whether it served before (elastic scale-up).
        """
        is_serving = is_serving or worker in _STARTED
        _STARTED.add(worker)
        if self._setting == "off":
            return
        if self._n_steps_of_vllm:
            self._emit("execution_run", by="vllm", status="done", n=self._n_steps_of_vllm)
            return
        why = why_not(worker, is_serving=is_serving) if self._setting == "on" else "JITWARM_EXECUTION_WARMUP is not on"
        if why:
            self._emit("execution_run", by=None, status="not_run", why=why)
            if self._setting == "on":
                complain(f"no execution run: {why}")
            return
        self._run(worker)

    def _run(self, worker: Any) -> None:
        start, error, n_requests = time.monotonic(), "", 0
        self._emit("phase_start", phase="execution")
        try:
            with self._monitor.accounting(EXECUTION_RUN), _undisturbed(worker):
                n_requests = execute(worker)
        except Exception as exc:  # noqa: BLE001 - whatever fails here, the engine starts
            error = text_of(exc)
            complain(f"the execution run failed, and what it did not reach will compile when it is first used: {error}")
        status = {"status": "failed", "error": error} if error else {"status": "done"}
        seconds = round(time.monotonic() - start, 4)
        self._emit("phase_end", phase="execution")
        self._emit("execution_run", by="jitwarm", n=n_requests, seconds=seconds, **status)


def why_not(worker: Any, *, is_serving: bool) -> str:
    """Why there can be no execution run; empty where there can. Asks nothing that ranks of one engine may differ in."""
    try:
        return next(_obstacles(worker, is_serving=is_serving), "")
    except Exception as exc:  # noqa: BLE001 - a model runner that has something else where we look
        return f"{type(worker).__qualname__} executes in a way that is not known here: {text_of(exc)}"


def _obstacles(worker: Any, *, is_serving: bool) -> Iterator[str]:
    runner: Any = getattr(worker, "model_runner", None)
    config = worker.vllm_config
    if is_serving or os.environ.get(_SCALE_UP) == "1":
        yield "this engine is being scaled, and other ranks are serving"
    if not (
        hasattr(runner, "kv_cache_config") and hasattr(worker, "execute_model") and hasattr(worker, "sample_tokens")
    ):
        yield f"{type(worker).__qualname__} executes in a way that is not known here"
    if getattr(config.model_config, "is_encoder_decoder", False) or getattr(config, "is_mm_encoder_only", False):
        yield "a model with an encoder needs more than a prompt"
    if getattr(config, "ec_transfer_config", None) is not None:
        yield "the encoder's outputs come from another engine"
    if _is_v2(runner):
        return  # vLLM's own function does it, and knows the rest
    if getattr(config, "kv_transfer_config", None) is not None:
        yield "a KV connector is configured, and this model runner cannot disable it for a step"
    if not Requests(runner).ids:
        yield "the KV cache, or the longest prompt, has no room for three tokens"


def _is_v2(runner: Any) -> bool:
    return any(kind.__module__ == _V2_RUNNER for kind in type(runner).__mro__)


def execute(worker: Any) -> int:
    """Execute all steps, and have the worker forget the requests, also when one raised.

    Returns:
        The number of requests.

    Raises:
        Exception: What the first step that failed has raised.
    """
    if _is_v2(worker.model_runner):
        return _as_vllm_would(worker)
    requests = Requests(worker.model_runner)
    n_stages = worker.vllm_config.parallel_config.pipeline_parallel_size
    with _ended(worker, requests.end):
        errors = []
        for step in requests.steps():
            try:
                worker.execute_model(step.scheduled)
                if step.samples:
                    worker.sample_tokens(step.grammar)
            except Exception as exc:  # noqa: BLE001 - raised below
                errors.append(exc)
                if n_stages == 1:
                    break  # with more, the next stage waits for what this rank would send in the next step
        if errors:
            raise errors[0]
    return len(requests.ids)


def _as_vllm_would(worker: Any) -> int:
    """By vLLM's own function, which the second model runner has, and which it leaves out where it does not capture graphs."""
    known: dict[str, None] = {}

    def execute_model(scheduled: Any) -> Any:
        known.update(dict.fromkeys(request.req_id for request in scheduled.scheduled_new_reqs))
        return worker.execute_model(scheduled)

    def end() -> Any:
        scheduled = import_module("vllm.v1.core.sched.output").SchedulerOutput.make_empty()
        scheduled.finished_req_ids = set(known)
        return scheduled

    runner = worker.model_runner
    warmup: Callable[..., None] = import_module(_V2_WARMUP).warmup_kernels
    try:
        warmup(runner, execute_model, worker.sample_tokens)
    except BaseException:
        with _ended(worker, end):
            raise
    finally:
        runner.kv_connector.set_disabled(False)
    return len(known)


@contextmanager
def _ended(worker: Any, end: Callable[[], Any]) -> Iterator[None]:
    """On leaving, whatever happened, the worker has forgotten the requests. What was raised inside is what is raised."""
    try:
        yield
    except BaseException:
        try:
            worker.execute_model(end())
        except Exception as exc:  # noqa: BLE001 - the first error is the one to tell
            complain(f"requests of the execution run may be left in the model runner: {text_of(exc)}")
        raise
    worker.execute_model(end())


@contextmanager
def _undisturbed(worker: Any) -> Iterator[None]:
    """On leaving, the device is idle and its random numbers go on where they were: serving samples as it would have."""
    torch = sys.modules["torch"]
    device = worker.device
    is_cpu = device.type == "cpu"
    devices = [] if is_cpu else [torch.accelerator.current_device_index()]
    of_device: dict[str, Any] = {} if is_cpu else {"device_type": device.type}
    with torch.random.fork_rng(devices=devices, **of_device), torch.inference_mode():
        try:
            yield
        finally:
            if not is_cpu:
                torch.accelerator.synchronize()
