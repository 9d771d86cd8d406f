"""What one worker does before its warm-up, so that the warm-up has little left to do.

    init_device                  a builder is started: it compiles into the store, in a process of its own
    load_model                   meanwhile a thread here imports the plugins and lists their keys
    determine_available_memory   what is built is loaded first, so that vLLM counts it; nothing is waited for
    initialize_from_config       the same, in an elastic scale-up: its new engines measure no memory
    compile_or_warm_up_model     `warmup`: the rest

All of it is a head start and no more: whatever fails here, the warm-up does.
"""

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from jitwarm.early import Behind, EarlyBuilder, Spec
from jitwarm.environment import CACHE_VARIABLES
from jitwarm.errors import text_of
from jitwarm.events import EventLog
from jitwarm.integrations.vllm.asked import asked_of, config_of, n_ranks_on_node, place_caches
from jitwarm.store import Store

if TYPE_CHECKING:
    from jitwarm.engine.plan import Plan
    from jitwarm.session import Session

_ATTRIBUTE = "_jitwarm_early"
_DURING = "vLLM's start, before the warm-up"
_ENVELOPE = frozenset({"v", "t_ns", "mono_ns", "run", "pid"})


def begin(worker: Any) -> None:
    """Start the builder of a worker that has no device yet. Never raises.

    Side effects: starts a process; sets the compilers' cache variables where they are unset.
    """
    if (earlier := of(worker)) is not None:
        earlier.close()
    with suppress(Exception):  # the warm-up says what is wrong with the settings, once
        asked, _ = asked_of(worker.vllm_config)
        settings = asked.settings
        if not (settings.early and settings.isolate) or settings.max_keys is not None or settings.disable == ("*",):
            return
        if target := settings.target or _target_of(worker):
            place_caches(asked)
            config = config_of(worker, asked, has_layers=False)
            start = str(getattr(worker.vllm_config, "instance_id", "")) or settings.run_id
            spec = Spec(config, settings, target, n_ranks_on_node(worker.vllm_config), start)
            setattr(worker, _ATTRIBUTE, Early(spec, worker))


def of(worker: Any) -> "Early | None":
    """What `begin` began."""
    return getattr(worker, _ATTRIBUTE, None)


@contextmanager
def ending(worker: Any) -> Iterator["Early | None"]:
    """Entered when the warm-up begins, left when it is over; what `begin` began is of no more use then."""
    begun = of(worker)
    try:
        if begun:
            begun.at_seam()
        yield begun
    finally:
        if begun:
            begun.close()


class Early:
    """The head start of one worker.

    Args:
        spec: What can be built before there is a model.
        worker: vLLM's worker.

    Attributes:
        loaded: Fingerprints of what was loaded before vLLM measured its memory.

    Raises:
        OSError: No process can be started.
    """

    def __init__(self, spec: Spec, worker: Any) -> None:
        self._spec = spec
        self._worker = worker
        self._log = EventLog(spec.settings.run_id, worker.rank)
        self._is_kept = False
        self.loaded: set[str] = set()
        self._prepared: tuple[Session, Plan] | None = None
        self._thread: threading.Thread | None = None
        self._behind = Behind()
        self._accounts = ExitStack()
        self._is_loaded = False
        self._builder = EarlyBuilder(spec)
        self._log.emit("early_start", child=self._builder.pid, target=spec.target)

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While the weights are loaded. If that fails, nothing of ours goes on."""
        self._prepare()
        self._log.emit("phase_start", phase="load model")
        try:
            yield
        except BaseException:
            self.close()
            raise
        self._log.emit("phase_end", phase="load model")
        self._builder.loaded()
        self._behind.release()

    @contextmanager
    def profiling(self) -> Iterator[None]:
        """While vLLM measures how much memory the model needs: what is built is in it."""
        self.before_kernels()
        self._log.emit("phase_start", phase="memory profile")
        try:
            yield
        except BaseException:
            self.close()
            raise
        self._log.emit("phase_end", phase="memory profile")

    def before_kernels(self) -> None:
        """From here on vLLM launches kernels: what is built is loaded, and until the seam what compiles is told.

        Again is harmless. Imports that the loader left no time for are waited for: the warm-up would need them next.
        """
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            self._load()
        except Exception as exc:  # noqa: BLE001 - a head start
            self._log.emit("early_failed", error=text_of(exc))
        if self._prepared:
            self._accounts.enter_context(self._accounting(*self._prepared))

    def will_build(self, fingerprint: str) -> bool:
        """Whether a builder of this node has a key on its list."""
        return self._builder.will_build(fingerprint)

    def at_seam(self) -> None:
        """The warm-up begins."""
        self._accounts.close()
        self._builder.loaded()
        self._builder.at_seam()
        self._await_plan()
        self._keep_log()

    def close(self) -> None:
        """End the builder and what it started. Again is harmless."""
        self._accounts.close()
        self._builder.close()
        if self._prepared:
            self._prepared[0].finish()
        self._log.close()
        self._prepared = None

    def _prepare(self) -> None:
        """Let plugins be imported and keys be listed, while this thread waits for weights."""
        self._behind = Behind()
        with suppress(RuntimeError):
            self._thread = threading.Thread(target=self._plan, name="jitwarm: early", daemon=True)
            self._thread.start()

    def _await_plan(self) -> None:
        """Plugins are not asked from two threads; one that hangs is left to the deadlines of the warm-up."""
        self._behind.release()
        if thread := self._thread:
            thread.join(self._spec.settings.plan_timeout_s)
            self._thread = None

    def _plan(self) -> None:
        with suppress(OSError, AttributeError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))  # this thread's; the worker may be bound to a core
        try:
            with self._behind:
                self._prepared = self._planned()
        except Exception as exc:  # noqa: BLE001 - a head start
            self._log.emit("early_failed", error=text_of(exc))

    def _planned(self) -> tuple["Session", "Plan"]:
        from jitwarm.contract.target import Target  # noqa: PLC0415 - a start waits for none of these imports
        from jitwarm.session import Session  # noqa: PLC0415 - as above
        from jitwarm.settings import Asked, read_learned  # noqa: PLC0415 - as above

        settings = self._spec.settings
        patient = dataclasses.replace(settings, plan_timeout_s=threading.TIMEOUT_MAX)  # it may be held back for long
        session = Session(
            Asked(self._spec.config, patient, read_learned(settings)),
            Target.parse(self._spec.target),
            prepare_thread=device_chooser(self._worker),
            listeners=[self._forward],
            role="early",
        )
        self._log.emit("phase_start", phase="early plan")
        plan = session.plan()
        self._log.emit("phase_end", phase="early plan")
        return session, plan

    def _load(self) -> None:
        """Load what is built by now."""
        self._log.emit("phase_start", phase="early load")
        start = time.monotonic()
        self._await_plan()
        n_planned = 0
        if self._prepared:
            session, plan = self._prepared
            self.loaded, n_planned = session.load_ready(plan), plan.n_keys
        seconds = round(time.monotonic() - start, 4)
        self._log.emit("phase_end", phase="early load")
        self._log.emit("loaded_early", n=len(self.loaded), n_planned=n_planned, seconds=seconds)
        self._keep_log()

    def _accounting(self, session: "Session", plan: "Plan") -> AbstractContextManager[None]:
        """What compiles all the same, in vLLM's profile run, is told: it was not declared, or not built in time."""
        try:
            return session.monitor(plan).accounting(_DURING)
        except Exception as exc:  # noqa: BLE001 - an account, no more
            self._log.emit("early_failed", error=text_of(exc))
            return nullcontext()

    def _forward(self, event: Mapping[str, Any]) -> None:
        """What compiled before the seam is this log's; the session's own is not kept."""
        if event["event"] == "undeclared_compile":
            self._log.emit(**{name: value for name, value in event.items() if name not in _ENVELOPE})

    def _keep_log(self) -> None:
        """Write the events of before the warm-up; the store makes its directory, so that it is private."""
        if not self._is_kept:
            self._is_kept = True
            with suppress(Exception):  # whoever warms up says what is wrong with the store
                Store(self._spec.settings.root, CACHE_VARIABLES.values())
                self._log.keep_in(self._spec.settings.root / "events")


def device_chooser(worker: Any) -> Any:
    """Threads do not share the current GPU: each begins with the first one, whatever the worker's is."""
    device = getattr(worker, "device", None)

    def choose() -> None:
        if getattr(device, "type", "") == "cuda":
            sys.modules["torch"].cuda.set_device(device)

    return choose


def _target_of(worker: Any) -> str:
    """What vLLM's platform says of a GPU that nobody has touched yet; empty where it says nothing."""
    platform = sys.modules["vllm.platforms"].current_platform
    if platform.is_rocm():
        architecture = str(getattr(sys.modules.get("vllm.platforms.rocm"), "_GCN_ARCH", ""))
        return f"hip:{architecture.partition(':')[0]}" if architecture else ""
    if not platform.is_cuda():
        return ""
    capability = platform.get_device_capability(getattr(worker, "local_rank", 0))
    return "" if capability is None else f"cuda:{capability.major * 10 + capability.minor}"
