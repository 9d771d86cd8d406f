"""Calls into plugins with a deadline: one that hangs is left behind, by name, and the others go on.

The call runs in a daemon thread, because nothing in Python can end a call that does not end itself. Code that holds the
interpreter lock for ever cannot be left behind.
"""

import contextvars
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from jitwarm.errors import PluginTimeoutError

T = TypeVar("T")
_N_FRAMES = 3


class Deadline:
    """How long one call into a plugin may take.

    Args:
        timeout_s: Seconds per call; None calls directly, without a thread.
        prepare: Called first in each thread, for state that threads do not share, e.g. the current GPU.
        variable: Names the setting in the error.
    """

    def __init__(
        self,
        timeout_s: float | None = None,
        prepare: Callable[[], None] = lambda: None,
        variable: str = "JITWARM_PLAN_TIMEOUT_S",
    ) -> None:
        self._timeout_s = timeout_s
        self._variable = variable
        self._prepare = prepare

    def call(self, what: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call `function`, in the caller's context variables.

        Args:
            what: Names the call in the error, e.g. `"importing acme.kernels"`.
            function: What to call.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            PluginTimeoutError: It is late; the error says in which lines it hangs.
            Exception: What `function` raises.
        """
        if self._timeout_s is None:
            return function(*args, **kwargs)
        answer: list[tuple[bool, Any]] = []
        context = contextvars.copy_context()

        def work() -> None:
            try:
                self._prepare()
                answer.append((True, context.run(function, *args, **kwargs)))
            except BaseException as exc:  # noqa: BLE001 - carried to the caller, SystemExit too
                answer.append((False, exc))

        thread = threading.Thread(target=work, name=f"jitwarm: {what}", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if not answer:
            raise PluginTimeoutError(
                f"{what} took longer than {self._timeout_s:g} s",
                f"raise {self._variable} if it needs longer",
                _where(thread),
            )
        succeeded, value = answer[0]
        if not succeeded:
            raise value
        return value  # type: ignore[no-any-return]  # what `function` returned


_SHUTDOWN: list[BaseException] = []


def shut_down(exc: BaseException) -> NoReturn:
    """Raise what ends this process, from a signal handler; remembered, because a compiler in the middle may swallow it.

    Raises:
        BaseException: `exc`.
    """
    _SHUTDOWN.append(exc)
    raise exc


def raise_if_shutting_down() -> None:
    """Raise again what `shut_down` has raised, should somebody have swallowed it.

    Raises:
        BaseException: As said.
    """
    if _SHUTDOWN:
        raise _SHUTDOWN[-1]


def is_shutdown(exc: BaseException) -> bool:
    """Whether a `SystemExit` comes from this process's own handler of a signal, and not from whom we called.

    vLLM's workers end so, wherever they stand at that moment; a kernel that calls `sys.exit` is a fault of that kernel.
    """
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    codes = {getattr(getattr(handler, "__func__", handler), "__code__", None) for handler in handlers} - {None}
    frames = (frame.f_code for frame, _ in traceback.walk_tb(exc.__traceback__))
    return isinstance(exc, SystemExit) and any(code in codes for code in frames)


def _where(thread: threading.Thread) -> str:
    """The innermost lines in which a thread stands, innermost first."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to another thread's stack
    stack = traceback.extract_stack(frame)[-_N_FRAMES:] if frame else []
    return ", called from ".join(f"{line.filename}:{line.lineno} ({line.name})" for line in reversed(stack))
