"""What TileLang compiles, and takes from disk, while it is watched."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from jitwarm.contract.backend import Seen
from jitwarm.patches import Patch

if TYPE_CHECKING:
    from types import FrameType

_NAME = "tilelang"


@contextmanager
def watching(see: Callable[[Seen], None]) -> Iterator[None]:
    """While entered, tell `see` of each compile and of each kernel that is taken from disk, in whatever thread."""
    from tilelang.cache.kernel_cache import KernelCache
    from tilelang.jit import JITImpl
    from tilelang.jit.kernel import JITKernel

    def wrap_build(original: Callable[..., Any]) -> Callable[..., Any]:
        def build(kernel: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            adapter = original(kernel, function, *args, **kwargs)
            see(_seen("compile", function, time.monotonic() - start, JITImpl))
            return adapter

        return build

    def wrap_load(original: Callable[..., Any]) -> Callable[..., Any]:
        def load(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            loaded = original(*args, **kwargs)
            if loaded is not None:
                see(_seen("reload", getattr(loaded, "prim_func", None), time.monotonic() - start, JITImpl))
            return loaded

        return load

    with ExitStack() as stack:
        stack.enter_context(Patch(JITKernel, "_compile_and_create_adapter", wrap_build))
        stack.enter_context(Patch(KernelCache, "_load_kernel_from_disk", wrap_load))
        yield


def _seen(what: str, function: Any, seconds: float, factory_type: type) -> Seen:
    factory, arguments = _factory_call(factory_type)
    if factory is None:  # `tilelang.compile`, or a thread of `par_compile`
        attributes = getattr(function, "attrs", None) or {}
        return Seen(_NAME, what, f"?:{attributes.get('global_symbol', '?')}", {}, seconds)
    decorated = getattr(factory.func, "orig_func", factory.func)
    module, name = getattr(decorated, "__module__", "?"), getattr(decorated, "__qualname__", None) or "?"
    return Seen(_NAME, what, f"{module}:{name}", arguments, seconds, factory)


def _factory_call(factory_type: type) -> tuple[Any, dict[str, str]]:
    """The factory whose call led here, and its arguments as text; (None, {}) where there is none in this thread."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the factory is known to the caller only
    while frame is not None:
        at = frame.f_locals
        if isinstance(at.get("self"), factory_type) and "args" in at and "kwargs" in at:
            factory = at["self"]
            return factory, _texts(factory, at["args"], at["kwargs"])
        frame = frame.f_back
    return None, {}


def _texts(factory: Any, args: Any, kwargs: Any) -> dict[str, str]:
    try:
        given = factory.signature.bind_partial(*args, **kwargs).arguments
    except TypeError:
        given = {**{f"argument {n}": value for n, value in enumerate(args)}, **kwargs}
    return {name: _text(value) for name, value in given.items()}


def _text(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return str(value) if shape is None else f"{getattr(value, 'dtype', '?')} {tuple(shape)}"
