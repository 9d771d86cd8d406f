"""The monitor: after the start, every compile that still happens is counted, named and explained.

It listens where compilers compile, and nowhere else, so a launch of a warm key pays nothing. It chains what listens already,
vLLM's JIT monitor for one, whichever of the two came first.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict
from typing import Any, Self

from jitwarm.contract.backend import Backend, Seen, TargetScope, is_compiling
from jitwarm.contract.target import Target
from jitwarm.errors import UnexpectedCompileError, text_of
from jitwarm.monitor.expected import ExpectedKernel, ExpectedKey
from jitwarm.monitor.explanation import Explanation, described, explain
from jitwarm.monitor.libraries import WATCHES
from jitwarm.monitor.stack import asked_key, call_site

MODES = ("off", "warn", "error", "record")
_LOOK_S = 60.0
_COUNTED = ("compile", "tuning")

__all__ = ["MODES", "ExpectedKernel", "ExpectedKey", "Monitor", "described", "sentence"]


class Monitor(AbstractContextManager["Monitor"]):
    """Armed while entered.

    Args:
        backends: Those to listen at.
        emit: Receives `unexpected_compile`, `undeclared_compile`, `reloaded`, `module_loaded`, and `key_used`.
        mode: `"warn"` tells; `"error"` also makes the launch raise; `"record"` tells, and with `record` keeps what is needed to
            have it warm at the next start; `"off"` listens to nothing.
        expected: What was made warm.
        target: What it was made warm for.
        record: Receives each undeclared compile, and in mode `record` each unexpected one, with the text from which it can be
            made again.

    Attributes:
        n_unexpected: Compiles and tunings since it was armed.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        emit: Callable[..., None],
        *,
        mode: str = "warn",
        expected: Iterable[ExpectedKernel] = (),
        target: Target | None = None,
        record: Callable[[Mapping[str, Any], str], None] | None = None,
    ) -> None:
        self.mode = mode
        self.n_unexpected = 0
        self._backends = list(backends)
        self._emit = emit
        self._expected = list(expected)
        self._record = record
        self._stack = ExitStack()
        self._lock = threading.RLock()
        self._uses = _Uses(self._backends, self._expected, target, emit)

    def __enter__(self) -> Self:
        if self.mode == "off":
            return self
        self._listen(self._stack, self._see)
        self._emit("monitor_armed", by="jitwarm", mode=self.mode)
        self._uses.begin()
        return self

    @contextmanager
    def accounting(self, during: str) -> Iterator[None]:
        """While entered, tell and record each compile as `undeclared_compile`, whatever the mode; nothing raises.

        For what runs before anything is served, so that no request waits: an engine's own warm-up. It need not be armed.

        Args:
            during: Names that, for people.
        """
        with ExitStack() as stack:
            self._listen(stack, lambda seen: self._account(seen, during))
            yield

    def _listen(self, stack: ExitStack, see: Callable[[Seen], None]) -> None:
        """Have every compiler call `see` until `stack` is closed."""
        watches = {**{backend.name: backend.watch for backend in self._backends}, **WATCHES}
        for name, watch in watches.items():
            try:
                stack.enter_context(watch(see))
            except Exception as exc:  # noqa: BLE001 - a version that cannot be watched must be usable all the same
                self._emit("monitor_blind", backend=name, error=text_of(exc))

    def __exit__(self, *exc: object) -> None:
        """Disarm."""
        self._stack.close()
        if self.mode != "off":
            self._uses.end()
            self._emit("monitor_ended", n=self.n_unexpected)

    def look(self) -> None:
        """Tell which warm keys have been used since; done every minute by itself."""
        self._uses.look()

    def tell(self, seen: Seen) -> None:
        """Tell a compile that somebody else has seen, and stopped, in the thread in which it was to happen. Never raises."""
        with suppress(UnexpectedCompileError):
            self._see(seen)

    def _see(self, seen: Seen) -> None:
        """Called by a backend, in the thread that compiles. Raises in mode `error` and nothing else."""
        if is_compiling():
            return  # it is us
        if seen.what == "module":
            self._emit("module_loaded", backend=seen.backend, function=seen.function, site=call_site())
            return
        with self._lock:
            event = self._explained(seen)
            if seen.what not in _COUNTED:
                self._emit("reloaded", **{name: event[name] for name in _OF_RELOAD})
                return
            self.n_unexpected += 1
            self._emit("unexpected_compile", **event)
            if self.mode == "record":
                self._write_down(event, seen.replay)
        if self.mode == "error":
            raise UnexpectedCompileError(sentence(event), event["line"], event["site"])

    def _account(self, seen: Seen, during: str) -> None:
        """Called by a backend, in the thread that compiles. Never raises."""
        if is_compiling() or seen.what not in _COUNTED:
            return
        with self._lock:
            event = {**self._explained(seen), "during": during}
            self._emit("undeclared_compile", **event)
            self._write_down(event, seen.replay)

    def _write_down(self, event: Mapping[str, Any], replay: str) -> None:
        if self._record is None:
            return
        try:
            self._record(event, replay)
        except OSError as exc:
            self._record = None  # a disk that is full is told once
            self._emit("record_failed", error=text_of(exc))

    def _explained(self, seen: Seen) -> dict[str, Any]:
        site, thread = call_site(), threading.current_thread().name
        try:
            explanation = self._explain(seen)
        except Exception as exc:  # noqa: BLE001 - what is not explained is told all the same
            explanation = Explanation(why=f"it cannot be explained: {text_of(exc)}")
        return {
            "backend": seen.backend,
            "what": seen.what,
            "function": seen.function,
            **asdict(explanation),
            "site": site,
            "seconds": round(seen.seconds, 4),
            "thread": thread,
        }

    def _explain(self, seen: Seen) -> Explanation:
        backend = next((backend for backend in self._backends if backend.name == seen.backend), None)
        if backend is None:
            return explain(seen, None, None, lambda _: {})
        named = [
            kernel
            for kernel in self._expected
            if seen.handle is not None and backend.compiles(kernel.record.kernel, seen.handle)
        ]
        asked = asked_key(kernel.record for kernel in named or self._expected)
        kernel = next((k for k in self._expected if asked and k.record is asked.record), None)
        kernel = kernel or next(iter(named), None)
        return explain(
            seen, kernel, asked, lambda key: backend.specialization(kernel.record.kernel if kernel else None, key)
        )


_OF_RELOAD = ("backend", "function", "kernel", "label", "site", "seconds")


def sentence(event: Mapping[str, Any]) -> str:
    """An `unexpected_compile` or `undeclared_compile` for a log: what, for what, when, why, and what differs."""
    name = event["kernel"] or event["function"]
    label = f" [{event['label']}]" if event["label"] else ""
    verb = "was tuned" if event["what"] == "tuning" else "compiled"
    when = f"during {event['during']}" if "during" in event else "after the start"
    text = f"{name}{label} {verb} {when}, in {event['seconds']:.2f} s: {event['why']}"
    if event["differences"]:
        nearest = f" to the nearest, [{event['nearest']}]" if event["nearest"] else ""
        text += f"; differences{nearest}: {'; '.join(event['differences'])}"
    return text


class _Uses:
    """Which warm keys are used: looked at now and then, so that a use itself costs nothing."""

    def __init__(
        self,
        backends: list[Backend],
        expected: list[ExpectedKernel],
        target: Target | None,
        emit: Callable[..., None],
    ) -> None:
        self._target = target
        self._emit = emit
        self._expected = expected
        self._owned = [
            (backend, kernel) for kernel in expected for backend in backends if backend.owns(kernel.record.kernel)
        ]
        self._told: set[str] = set()
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """From now on tell used keys from others."""
        seen = set()
        for backend, kernel in self._owned if self._target else ():
            warm = [key for key in kernel.keys if key.is_warm]
            with self._scope(), suppress(Exception):  # what is not seen is said to be unknown
                backend.begin_use([kernel.record.kernel])
                if backend.used(kernel.record.kernel, [key.key for key in warm]) is not None:
                    seen.add(kernel.record.id)
        if unknown := [kernel.record.id for kernel in self._expected if kernel.record.id not in seen]:
            self._emit("uses_unknown", kernels=unknown)
        if self._owned and self._target:
            threading.Thread(target=self._look_again, name="jitwarm: monitor", daemon=True).start()

    def end(self) -> None:
        """Look once more, and then no more."""
        self._ended.set()
        self.look()

    def look(self) -> None:
        """Tell each key that was used and was not told yet."""
        with self._lock:
            for backend, kernel in self._owned if self._target else ():
                self._look_at(backend, kernel)

    def _look_at(self, backend: Backend, kernel: ExpectedKernel) -> None:
        untold = [key for key in kernel.keys if key.is_warm and key.digest not in self._told]
        with self._scope(), suppress(Exception):  # what cannot be seen counts as not used
            used = backend.used(kernel.record.kernel, [key.key for key in untold]) or []
            for key in (key for key, is_used in zip(untold, used, strict=False) if is_used):
                self._told.add(key.digest)
                self._emit("key_used", kernel=kernel.record.id, digest=key.digest)

    def _look_again(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.look()

    def _scope(self) -> AbstractContextManager[None]:
        return TargetScope(self._target) if self._target else nullcontext()
