"""Watch the places where the compilers launch, and where torch begins to use a GPU: neither may happen while keys are made.

Compilers are not imported here: each place is watched once its module is there.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from jitwarm.errors import NoDeviceError
from jitwarm.monitor.stack import call_site
from jitwarm.patches import Patch, when_imported


@dataclass(frozen=True)
class Touch:
    """Something was launched, or a GPU was asked for.

    Attributes:
        kind: `"launch"` or `"cuda"`.
        what: e.g. `Triton kernel scale`.
        site: `file:line in function` of who asked for it.
    """

    kind: str
    what: str
    site: str


@contextmanager
def watched_launches(see: Callable[[Touch], None]) -> Iterator[None]:
    """While entered, call `see` with each launch, which then raises `NoDeviceError`, and with each first use of a GPU by torch.

    In threads, too. A launch that reaches the driver past Python is not seen; without a GPU it fails by itself.
    """
    with ExitStack() as stack:
        for module in _PLACES:
            stack.enter_context(when_imported(module, functools.partial(_refused, module, see)))
        stack.enter_context(when_imported("torch.cuda", functools.partial(_told, see)))
        yield


@contextmanager
def _refused(module: str, see: Callable[[Touch], None]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, method, name_of in _PLACES[module]:
            if owner := getattr(sys.modules[module], name, None):  # classes come and go with versions
                stack.enter_context(Patch(owner, method, functools.partial(_refusing, see, name_of)))
        yield


def _refusing(
    see: Callable[[Touch], None], name_of: Callable[..., str], original: Callable[..., Any]
) -> Callable[..., Any]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        what = name_of(self, **kwargs)
        if not what:
            return original(self, *args, **kwargs)
        see(Touch("launch", what, call_site()))
        raise NoDeviceError(f"{what} was launched while keys are made", "compile only: launch nothing")

    return refuse


@contextmanager
def _told(see: Callable[[Touch], None]) -> Iterator[None]:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def tell(*args: Any, **kwargs: Any) -> Any:
            see(Touch("cuda", "torch's CUDA", call_site()))
            return original(*args, **kwargs)

        return tell

    with Patch(sys.modules["torch.cuda"], "_lazy_init", wrap):
        yield


def _of_triton(function: Any, *, warmup: bool = False, **_: Any) -> str:
    """A launch, unless only the warm-up of one is asked for."""
    return "" if warmup else f"the Triton kernel {getattr(function, '__qualname__', function)}"


def _of_cutedsl(compiled: Any, **_: Any) -> str:
    return f"the CuTeDSL function {getattr(compiled, 'function_name', '') or getattr(compiled, 'prefix', '')}".strip()


def _of_tilelang(kernel: Any, **_: Any) -> str:
    function = getattr(kernel, "prim_func", None)
    attributes = getattr(function, "attrs", None) or {}
    return f"the TileLang kernel {attributes.get('global_symbol', '') if hasattr(attributes, 'get') else ''}".strip()


# Module -> (class, method, what is launched by a call of it).
_PLACES: dict[str, list[tuple[str, str, Callable[..., str]]]] = {
    "triton.runtime.jit": [("JITFunction", "run", _of_triton)],
    "cutlass.base_dsl.jit_executor": [
        ("JitExecutor", "run_compiled_program", _of_cutedsl),
        ("JitCompiledFunction", "__call__", _of_cutedsl),
    ],
    "cutlass.cutlass_dsl.tvm_ffi_provider": [
        ("TVMFFIJitCompiledFunction", "__call__", _of_cutedsl),
        ("TVMFFIJitCompiledFunctionWithKwargs", "__call__", _of_cutedsl),
    ],
    "tilelang.jit.kernel": [("JITKernel", "__call__", _of_tilelang)],
}
