"""`no_cold_compiles`: nothing compiles while it is entered, or it fails and says what did.

Listens where the monitor does: at the built-in backends, at torch.compile and at FlashInfer's JIT, in every thread of this
process. What jitwarm itself compiles at that time, to warm a key, is no cold compile. Compilers are not imported here.
"""

import fnmatch
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from jitwarm.contract.backend import Seen, is_compiling
from jitwarm.errors import ColdCompileError
from jitwarm.monitor.libraries import WATCHES
from jitwarm.monitor.stack import call_site
from jitwarm.registry import Registry
from jitwarm.testing.checklist import counted

_COMPILES = ("compile", "tuning")
_VERBS = {
    "compile": "compiled",
    "tuning": "was tuned",
    "reload": "was loaded from disk (on a machine with an empty cache it compiles)",
}
_HINT = "warm it before the test, e.g. in a fixture, or allow it: allow={!r}"


@dataclass(frozen=True)
class Compile:
    """Something that a compiler did.

    Attributes:
        backend: e.g. `"triton"`.
        what: `"compile"`; `"tuning"`, if configurations were timed; or `"reload"`, if it was found on disk.
        function: `module:qualname` of what was compiled.
        specialization: What it was compiled for: parameter -> text.
        seconds: How long it took.
        site: `file:line in function` of who asked for it.
        is_warmup: Whether jitwarm asked for it.
    """

    backend: str
    what: str
    function: str
    specialization: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    site: str = ""
    is_warmup: bool = False

    @property
    def is_compile(self) -> bool:
        """Whether a compiler ran."""
        return self.what in _COMPILES

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}: {text}" for name, text in self.specialization.items())
        asked = f"\n    asked for at {self.site}" if self.site else ""
        return f"{self.backend}: {self.function} {_VERBS[self.what]}, {self.seconds:.2f} s\n    for {arguments or '?'}{asked}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "specialization": dict(self.specialization)}


class ColdCompiles(AbstractContextManager["ColdCompiles"]):
    """While entered, notes what compiles; see `no_cold_compiles`.

    Attributes:
        compiles: What counts, in order.
    """

    def __init__(self, allow: str | Iterable[str] = (), *, allow_reloads: bool = False) -> None:
        self.compiles: list[Compile] = []
        self._allowed = (allow,) if isinstance(allow, str) else tuple(allow)
        self._allows_reloads = allow_reloads
        self._pauses = 0
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def watching(self) -> AbstractContextManager[None]:
        """While entered, note what compiles; raise nothing."""
        return watched_compiles(self._see)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.watching())
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        """Stop watching; raise if something counts and nothing else was raised."""
        self._stack.close()
        if kind is None and self.compiles:
            raise ColdCompileError(self.text(), self.hint())

    @contextmanager
    def warming(self) -> Iterator[None]:
        """While entered, whatever compiles does not count: here a test warms its kernels by launching them."""
        with self._lock:
            self._pauses += 1
        try:
            yield
        finally:
            with self._lock:
                self._pauses -= 1

    def text(self) -> str:
        """What counts, for people."""
        return "\n".join([counted(len(self.compiles), "cold compile"), *map(str, self.compiles)])

    def hint(self) -> str:
        """What to do about it."""
        return _HINT.format(self.compiles[0].function)

    def _see(self, compiled: Compile) -> None:
        is_allowed = any(fnmatch.fnmatchcase(compiled.function, glob) for glob in self._allowed)
        with self._lock:
            if not (is_allowed or compiled.is_warmup or self._pauses or self._is_reload(compiled)):
                self.compiles.append(compiled)

    def _is_reload(self, compiled: Compile) -> bool:
        return self._allows_reloads and not compiled.is_compile


def no_cold_compiles(allow: str | Iterable[str] = (), *, allow_reloads: bool = False) -> ColdCompiles:
    """A context in which nothing may compile, in any thread of this process.

    Args:
        allow: Globs over `module:qualname` of functions that may.
        allow_reloads: What is found on disk may be loaded. By default it may not: on a machine with an empty cache it compiles.

    Returns:
        A context manager; entered, it gives itself: `compiles` is what has counted so far, within `.warming()` nothing counts.

    Raises:
        ColdCompileError: At its end: each compile with function, specialization and call site.
    """
    return ColdCompiles(allow, allow_reloads=allow_reloads)


@contextmanager
def watched_compiles(see: Callable[[Compile], None]) -> Iterator[None]:
    """While entered, call `see` with each compile, tuning and reload, in the thread in which it happens."""

    def note(seen: Seen) -> None:
        if seen.what in _VERBS:
            see(
                Compile(
                    seen.backend,
                    seen.what,
                    seen.function,
                    dict(seen.specialization),
                    round(seen.seconds, 4),
                    call_site(),
                    is_compiling(),
                )
            )

    registry = Registry()
    registry.load_builtin()
    with ExitStack() as stack:
        for backend in registry.backends:
            stack.enter_context(backend.watch(note))
        for watch in WATCHES.values():
            stack.enter_context(watch(note))
        yield
