"""What CuTeDSL compiles while it is watched, explicitly and by direct calls of `@cute.jit` functions."""

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jitwarm.contract.backend import Seen
from jitwarm.patches import Patch

_MAX_TEXT = 80


@contextmanager
def watching(see: Callable[[Seen], None]) -> Iterator[None]:
    """While entered, tell `see` of each compile, in whatever thread."""
    from cutlass.cutlass_dsl.cutlass import CutlassBaseDSL

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def compile_and_cache(*args: Any, **kwargs: Any) -> Any:
            start = time.monotonic()
            compiled = original(*args, **kwargs)
            see(_seen(kwargs, time.monotonic() - start))
            return compiled

        return compile_and_cache

    with Patch(CutlassBaseDSL, "compile_and_cache", wrap):
        yield


def function_path(function: Any) -> str:
    """`module:qualname` of a host function, or of the class whose call is one."""
    function = inspect.unwrap(function)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _seen(given: dict[str, Any], seconds: float) -> Seen:
    function = given.get("funcBody")
    path = function_path(function) if function is not None else str(given.get("original_function_name") or "?")
    return Seen("cutedsl", "compile", path, _arguments(function, given), seconds, function)


def _arguments(function: Any, given: dict[str, Any]) -> dict[str, str]:
    """Argument -> what was compiled for."""
    values = given.get("full_args") or ()
    names = [f"argument {n}" for n in range(len(values))]
    if function is not None:
        names = [*inspect.signature(function).parameters][: len(values)] + names[len(values) :]
    found = dict(zip(names, values, strict=False)) | (given.get("full_kwargs") or {})
    return {name: _text(value) for name, value in found.items() if name != "self"}


def _text(value: Any) -> str:
    """A tensor by element type, shape and strides, a runtime scalar by its type, anything else by its own text, cut."""
    element, shape = getattr(value, "element_type", None), getattr(value, "shape", None)
    if element is None or shape is None:
        # A runtime scalar: its value is not compiled in.
        text = type(value).__name__ if type(value).__module__.startswith("cutlass") else str(value)
        return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 3] + "..."
    strides = getattr(value, "stride", None)
    return f"{getattr(element, '__name__', element)} {shape}" + ("" if strides is None else f" strides {strides}")
