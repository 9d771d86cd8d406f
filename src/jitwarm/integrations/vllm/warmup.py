"""The warm-up of one vLLM worker: configuration, session, outcome. Runs at the seam, and nowhere else."""

import atexit
import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from jitwarm import readiness
from jitwarm.contract.backend import Seen
from jitwarm.contract.config import LiveObjects
from jitwarm.engine.plan import Plan
from jitwarm.engine.report import Report
from jitwarm.environment import LINEAGE
from jitwarm.errors import JitwarmError, WarmupFailedError, text_of
from jitwarm.integrations.vllm import REGISTERED, adoption, complain, early
from jitwarm.integrations.vllm.asked import asked_of, config_of, forget_default_caches, n_ranks_on_node
from jitwarm.integrations.vllm.execution import Execution
from jitwarm.integrations.vllm.group import Meeting
from jitwarm.integrations.vllm.reporting import Reporter, complaints
from jitwarm.monitor import Monitor
from jitwarm.observers import observers
from jitwarm.patches import Patch
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

_MONITOR = "vllm.utils.jit_monitor"


class Watch:
    """What is still to be done after the warm-up: arm the monitor, and note vLLM's and the first step of a request.

    Args:
        session: None where there was no warm-up.
        monitor: Ours, not armed yet.
    """

    def __init__(self, session: Session | None = None, monitor: Monitor | None = None) -> None:
        self._session = session
        self._monitor = monitor
        self._was_armed = _is_armed()
        self._execution = Execution(session, monitor) if session and monitor else None

    def accounting(self, worker: Any) -> AbstractContextManager[None]:
        """Entered around the worker's own warm-up: what compiles in it, nobody has declared."""
        return self._execution.accounting(worker) if self._execution else nullcontext()

    def after_start(self, worker: Any) -> None:
        """Called when the worker's own warm-up is over."""
        if self._session is None:
            return
        try:
            if self._execution is not None:
                with _lenient_monitor():
                    self._execution.run(worker, is_serving=self._was_armed)
            self._note_start(worker)
        except Exception as exc:  # noqa: BLE001 - notes never stop an engine
            complain(f"the event log is incomplete: {text_of(exc)}")

    def _note_start(self, worker: Any) -> None:
        if self._session is None:
            return
        if _is_armed() and not self._was_armed:
            self._session.log.emit("monitor_armed", by="vllm", mode=getattr(sys.modules[_MONITOR], "_mode", None))
        if self._monitor is not None:
            _arm(self._monitor)
        _once_after(worker, "execute_model", self._first_step)

    def _first_step(self) -> None:
        if self._session is not None:
            self._session.log.emit("first_token")
            if self._monitor is None or self._monitor.mode == "off":
                self._session.finish()


# The monitor of this process. A worker that warms up again, in an elastic scale-up, gets another.
_ARMED = ExitStack()


def _arm(monitor: Monitor) -> None:
    _ARMED.enter_context(monitor)
    if _is_armed():
        _ARMED.enter_context(_told_of_refusals(monitor))


def _disarm() -> None:
    _ARMED.close()


def _told_of_refusals(monitor: Monitor) -> AbstractContextManager[None]:
    """While entered, ours tells what vLLM's monitor, in mode `error`, stops before it compiles; only Triton compiles first."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def handle(*, backend: str, fn_name: str, **kwargs: Any) -> Any:
            try:
                return original(backend=backend, fn_name=fn_name, **kwargs)
            except RuntimeError:
                if backend.lower() != "triton":
                    monitor.tell(Seen(backend.lower(), "compile", f"?:{fn_name}"))
                raise

        return handle

    return Patch(sys.modules[_MONITOR], "_handle_jit_event", wrap)


atexit.register(_disarm)


def warm_worker(worker: Any) -> Watch:
    """Make every kernel of every installed plugin warm in this process.

    Args:
        worker: vLLM's worker, with its model loaded and its KV cache in place.

    Raises:
        WarmupFailedError: Policy `strict`, and something is not warm. Nothing else: a fault of ours is one line in the log.
    """
    is_strict, meeting = False, Meeting(worker.vllm_config, Settings())
    try:
        asked, problems = asked_of(worker.vllm_config)
        for problem in problems:
            complain(f"setting {problem}")
        meeting = Meeting(worker.vllm_config, asked.settings)
        is_strict = asked.settings.policy == "strict"
        if asked.settings.disable == ("*",):
            _tell_probes(worker, "switched off")
            return Watch()
        _disarm()
        with _lenient_monitor():
            return Watch(*_warm(worker, asked, meeting))
    except WarmupFailedError:
        raise
    except Exception as exc:
        told = str(exc) if isinstance(exc, JitwarmError) else f"{text_of(exc)}\n{traceback.format_exc()}"
        meeting.excuse(f"no warm-up: {text_of(exc)}")
        if is_strict:
            raise WarmupFailedError(f"jitwarm: no warm-up: {told}", "JITWARM_POLICY is strict") from exc
        complain(f"no warm-up: {told}")  # whatever fails here, the engine starts
        _tell_probes(worker, told)
        return Watch()


def _tell_probes(worker: Any, why: str) -> None:
    """There is no warm-up here: whoever waits for its end, by the ready file, must not wait for ever."""
    with suppress(Exception):
        asked, _ = asked_of(worker.vllm_config)
        if asked.settings.ready_file:
            file = Path(asked.settings.ready_file).expanduser()
            readiness.give_up(file, why, worker.rank, n_ranks_on_node(worker.vllm_config))


def _warm(worker: Any, asked: Asked, meeting: Meeting) -> tuple[Session, Monitor]:
    settings = asked.settings
    config = config_of(worker, asked)
    forget_default_caches()
    reporter = Reporter(worker, is_verbose=settings.verbose)
    with early.ending(worker) as begun:
        session = Session(
            dataclasses.replace(asked, config=config),
            listeners=[reporter, *observers(settings, worker.rank, n_ranks_on_node(worker.vllm_config), complain)],
            prepare_thread=early.device_chooser(worker),
            rank=worker.rank,
            n_ranks=n_ranks_on_node(worker.vllm_config),
            loaded_before=begun.loaded if begun else (),
            left_to_others=begun.will_build if begun else None,
        )
        session.meet = meeting
        try:
            plan = _run(worker, session)
            reporter.close(session)
            if settings.policy == "strict":
                _refuse_cold(session.report)
        except BaseException:
            session.finish()
            raise
    return session, session.monitor(plan)


def _run(worker: Any, session: Session) -> Plan:
    session.log.emit(
        "registered", lineage=os.environ.get(LINEAGE, ""), **{f"at_{name}": value for name, value in REGISTERED.items()}
    )
    adopts = adoption.adopted(worker, session.registry) if session.asked.settings.adopt else nullcontext()
    with LiveObjects(worker.get_model(), getattr(worker, "model_runner", None)), adopts:
        with _phase(session, "plan"):
            plan = session.plan(will_run=True)
        with _phase(session, "warmup"), _device_memory(worker, session):
            try:
                session.run(plan)
            except Exception:
                session.tune()  # the other ranks may be waiting
                raise
    session.finish_in_background(plan)
    return plan


@contextmanager
def _device_memory(worker: Any, session: Session) -> Iterator[None]:
    """Note what the device has left before and after; what was loaded between the two, nobody counted."""
    device = getattr(worker, "device", None)
    if getattr(device, "type", "") != "cuda":
        yield
        return
    free = sys.modules["torch"].cuda.mem_get_info
    before, _ = free(device)
    yield
    after, _ = free(device)
    session.log.emit("device_memory", free_before=before, free_after=after)


def _refuse_cold(report: Report) -> None:
    if wrong := complaints(report):
        raise WarmupFailedError("jitwarm: not everything is warm, and JITWARM_POLICY is strict", "\n".join(wrong))


@contextmanager
def _phase(session: Session, name: str) -> Iterator[None]:
    session.log.emit("phase_start", phase=name)
    try:
        yield
    finally:
        session.log.emit("phase_end", phase=name)


def _is_armed() -> bool:
    monitor = sys.modules.get(_MONITOR)
    return bool(getattr(monitor, "_active", False))


@contextmanager
def _lenient_monitor() -> Iterator[None]:
    """While entered, a monitor that is armed already (elastic scale-up warms up a serving worker) only warns of our compiles."""
    monitor: Any = sys.modules.get(_MONITOR)
    if not _is_armed() or getattr(monitor, "_mode", None) != "error":
        yield
        return
    monitor._mode = "warn"  # noqa: SLF001 - it has no switch
    try:
        yield
    finally:
        monitor._mode = "error"  # noqa: SLF001 - as above


def _once_after(worker: Any, method: str, note: Callable[[], None]) -> None:
    """Call `note` after the next call of a method of this worker; later calls are the method itself again."""
    original = getattr(worker, method, None)
    if original is None:
        return

    def once(*args: Any, **kwargs: Any) -> Any:
        vars(worker).pop(method, None)
        result = original(*args, **kwargs)
        try:
            note()
        except Exception as exc:  # noqa: BLE001 - notes never stop an engine
            complain(f"the event log is incomplete: {text_of(exc)}")
        return result

    setattr(worker, method, once)
