"""Compilers that no adapter owns, as far as they have a place to listen at: torch.compile, and FlashInfer's C++ JIT."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from jitwarm.contract.backend import Seen
from jitwarm.patches import Patch, when_imported

See = Callable[[Seen], None]


@contextmanager
def _inductor(see: See) -> Iterator[None]:
    """By torch's own callbacks, around each compile of a graph and each lazy part of it."""
    from torch._dynamo.callback import callback_handler  # noqa: PLC0415 - it was imported before

    started: list[float] = []

    def start(*_: Any) -> None:
        started.append(time.monotonic())

    def end(*said: Any) -> None:  # earlier versions of torch say nothing
        seconds = time.monotonic() - started.pop() if started else 0.0
        name = ":".join(["torch.compile", *(str(one.compile_id) for one in said)])
        triggers = [one.callback_trigger.name.lower().replace("_", " ") for one in said]
        see(Seen("inductor", "compile", name, {"trigger": ", ".join(triggers)} if triggers else {}, seconds))

    callback_handler.register_start_callback(start)
    callback_handler.register_end_callback(end)
    try:
        yield
    finally:
        callback_handler.remove_start_callback(start)
        callback_handler.remove_end_callback(end)


@contextmanager
def _flashinfer(see: See) -> Iterator[None]:
    """Where a module is built; one that is found built passes elsewhere."""
    from flashinfer.jit.core import JitSpec  # noqa: PLC0415 - it was imported before

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def build(spec: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            built = original(spec, *args, **kwargs)
            see(Seen("flashinfer", "compile", f"flashinfer:{spec.name}", {}, time.monotonic() - start))
            return built

        return build

    with ExitStack() as stack:
        for kind in (JitSpec, *_descendants(JitSpec)):
            if "build" in vars(kind) and not getattr(kind.build, "__isabstractmethod__", False):
                stack.enter_context(Patch(kind, "build", wrap))
        yield


def _descendants(kind: type[Any]) -> Iterator[type[Any]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


# By name of the compiler what, while it is entered, tells `see` of what it compiles. Imports none of them.
WATCHES: dict[str, Callable[[See], AbstractContextManager[None]]] = {
    "inductor": lambda see: when_imported("torch._dynamo", lambda: _inductor(see)),
    "flashinfer": lambda see: when_imported("flashinfer", lambda: _flashinfer(see)),
}
