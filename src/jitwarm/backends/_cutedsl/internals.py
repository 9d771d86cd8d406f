"""Everything of CuTeDSL that is no public interface, in one place. Tried with 4.8.1.

`cute.compile` keeps nothing on disk and asks no cache: every call compiles. So the compiles are counted at
`CutlassBaseDSL.compile_and_cache`, which a call of a compiled or loaded object never reaches.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jitwarm.contract.backend import current_target
from jitwarm.contract.target import Target
from jitwarm.errors import CompileError, InvalidKernelError, NoDeviceError, TargetError

_EM_CUDA = 190
_NUMERIC_TYPES = {
    "bool": "Boolean", "uint8": "Uint8", "int8": "Int8", "int16": "Int16", "uint16": "Uint16", "int32": "Int32",
    "uint32": "Uint32", "int64": "Int64", "uint64": "Uint64", "float16": "Float16", "bfloat16": "BFloat16",
    "float32": "Float32", "float64": "Float64", "float8_e4m3fn": "Float8E4M3FN", "float8_e5m2": "Float8E5M2",
    "float8_e8m0fnu": "Float8E8M0FNU",
}  # fmt: skip


def numeric_type(dtype: str) -> Any:
    """The CuTeDSL type of a torch dtype's name.

    Raises:
        InvalidKernelError: CuTeDSL has none.
    """
    import cutlass

    found = getattr(cutlass, _NUMERIC_TYPES.get(dtype, ""), None)
    if found is None:
        raise InvalidKernelError(f"CuTeDSL has no type for dtype {dtype!r}", f"it has {', '.join(_NUMERIC_TYPES)}")
    return found


@contextmanager
def pinned(target: Target) -> Iterator[None]:
    """While entered, compile for `target`. Without it and without a GPU, CuTeDSL would silently build for sm_100a."""
    environment = _dsl().envar
    before = environment.arch
    environment.arch = target.sm
    try:
        yield
    finally:
        environment.arch = before


@contextmanager
def pinned_to_device() -> Iterator[None]:
    """While entered, compile for this process's GPU, or for what is pinned already.

    Raises:
        NoDeviceError: There is neither.
    """
    try:
        target = current_target()
    except TargetError:
        found = device_target()
        if found is None:
            raise NoDeviceError(
                "this key is not warm, and there is no GPU to compile it for", "warm it first"
            ) from None
        target = found
    with pinned(target):
        yield


def device_target() -> Target | None:
    """The target of the current CUDA device, or None where there is no driver or no device."""
    from cuda.bindings import runtime

    try:
        error, device = runtime.cudaGetDevice()
        if error != runtime.cudaError_t.cudaSuccess:
            return None
        attribute = runtime.cudaDeviceAttr
        _, major = runtime.cudaDeviceGetAttribute(attribute.cudaDevAttrComputeCapabilityMajor, device)
        _, minor = runtime.cudaDeviceGetAttribute(attribute.cudaDevAttrComputeCapabilityMinor, device)
    except Exception:  # noqa: BLE001 - a missing driver library shows as one of many classes
        return None
    return Target("cuda", str(10 * major + minor))


@contextmanager
def counting(on_compile: Callable[[], None]) -> Iterator[None]:
    """While entered, call `on_compile` for each real compile."""
    from cutlass.cutlass_dsl.cutlass import CutlassBaseDSL

    original = CutlassBaseDSL.compile_and_cache

    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        on_compile()
        return original(*args, **kwargs)

    CutlassBaseDSL.compile_and_cache = counted
    try:
        yield
    finally:
        CutlassBaseDSL.compile_and_cache = original


@contextmanager
def replaced_compile(replacement: Callable[..., Any]) -> Iterator[None]:
    """While entered, `cute.compile(function, ...)` is `replacement(original, function, ...)`, with or without `[options]`."""
    from cutlass import cute

    original = cute.compile
    cute.compile = _Compile(original, replacement)
    try:
        yield
    finally:
        cute.compile = original


class _Compile:
    """Looks like `cute.compile`: callable, and subscripted with options."""

    def __init__(self, original: Any, replacement: Callable[..., Any]) -> None:
        self._original = original
        self._replacement = replacement

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._replacement(self._original, *args, **kwargs)

    def __getitem__(self, options: Any) -> Any:
        return _Compile(self._original[options], self._replacement)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def uses_tvm_ffi(compiled: Any) -> bool:
    """Whether a compiled object is of the flavour that can be exported and loaded without a pickle."""
    return hasattr(compiled, "_create_tvm_ffi_function")


def function_name(function: Any) -> str:
    """The traced function's own name, for telling whether a kept object is the one that is asked for."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


@contextmanager
def recorded_call_style() -> Iterator[dict[str, Any]]:
    """While entered, note how the compiled object takes keywords, if it does: a loaded one is positional only."""
    style: dict[str, Any] = {}
    if importlib.util.find_spec("tvm_ffi.utils.kwargs_wrapper") is None:
        yield style
        return
    from tvm_ffi.utils import kwargs_wrapper

    original = kwargs_wrapper.make_kwargs_wrapper

    def recording(target: Any, *args: Any, **kwargs: Any) -> Any:
        style.update(kwargs)
        return original(target, *args, **kwargs)

    kwargs_wrapper.make_kwargs_wrapper = recording
    try:
        yield style
    finally:
        kwargs_wrapper.make_kwargs_wrapper = original


def with_call_style(function: Any, style: dict[str, Any]) -> Any:
    """A loaded function that takes keywords and defaults as the compiled one did."""
    if not style:
        return function
    from tvm_ffi.utils.kwargs_wrapper import make_kwargs_wrapper

    defaults = {**style, "arg_defaults": tuple(style.get("arg_defaults", ()))}
    return make_kwargs_wrapper(function, **defaults)


def require_arch(obj: bytes, target: Target) -> None:
    """Refuse an object whose GPU code is not for `target`, or that holds none.

    Raises:
        CompileError: Says which architectures were found.
    """
    found = [f"sm_{arch}{'a' if specific else ''}" for arch, specific in _cubins(obj)]
    if not found or any(arch != target.sm for arch in found):
        raise CompileError(f"asked for {target.sm}, but the compiler made {', '.join(found) or 'no GPU code'}")


def _cubins(obj: bytes) -> Iterator[tuple[int, bool]]:
    """(arch number, architecture-specific features) of each GPU binary in a relocatable object.

    CUTLASS DSL embeds them raw. The ELF flags hold the number in bits 0-7 up to ABI version 7 and in bits 8-15 from 8 on.
    """
    at = obj.find(b"\x7fELF", 1)
    while at >= 0:
        if int.from_bytes(obj[at + 18 : at + 20], "little") == _EM_CUDA:
            flags, is_old = int.from_bytes(obj[at + 48 : at + 52], "little"), obj[at + 8] < 8  # noqa: PLR2004 - see above
            yield (flags if is_old else flags >> 8) & 0xFF, bool(flags & (0x800 if is_old else 0x8))
        at = obj.find(b"\x7fELF", at + 4)


def _dsl() -> Any:
    from cutlass.cutlass_dsl import CuTeDSL

    return CuTeDSL._get_dsl()
