"""Everything of Triton that is no public interface, in one place. Tried with 3.6.0, 3.8.0 and 3.9.0.

What differs between them, and is known here only: the options that `JITFunction.run` adds to every launch, the shape of
`device_caches`, and the stages-inspection hook, which is part of the in-process key from 3.8 on.
"""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jitwarm.contract.target import Target
from jitwarm.errors import CompileError, InvalidKernelError, NoDeviceError, UnsupportedTargetError

if TYPE_CHECKING:
    from types import FrameType

# Bytes of shared memory that one thread block can have, by CUDA arch; cuobjdump or the driver would say, but neither is
# here. A kernel that needs more compiles without complaint and fails when it is loaded.
_SHARED_BYTES = {70: 98304, 75: 65536, 80: 166912, 86: 101376, 87: 166912, 89: 101376, 90: 232448, 100: 232448, 103: 232448,
                 110: 232448, 120: 101376, 121: 101376}  # fmt: skip
_MAX_THREADS = 1024
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


class OfflineDriver:
    """A stand-in for the driver of a GPU that is not here: it names a target, so that Triton compiles; it cannot launch."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def get_current_target(self) -> Any:
        """The target to build for."""
        return self.target

    def get_current_device(self) -> int:
        """Always 0: Triton files compiled kernels per device."""
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        """The null stream."""
        del device
        return 0

    def launcher_cls(self, *_: Any) -> Any:
        """Triton asks for this when a kernel is first launched."""
        raise NoDeviceError(
            f"built for {self.target.backend}:{self.target.arch}, but this process has no GPU: it can compile, not launch"
        )


def has_real_driver() -> bool:
    """Whether Triton sees a GPU in this process.

    Where every GPU is hidden, as in a compile process, Triton is not asked: its answer begins with an import of torch.
    """
    if all(os.environ.get(name) == "" for name in _VISIBLE):
        return False
    from triton.backends import backends

    return any(backend.driver.is_active() for backend in backends.values())


def install_offline_driver(target: Target) -> None:
    """Make Triton compile for `target` in a process without a GPU, until the process ends.

    Raises:
        UnsupportedTargetError: It already compiles for another one: functions keep the target of their first compile.
    """
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    wanted = GPUTarget(target.kind, int(target.arch) if target.kind == "cuda" else target.arch, target.warp_size)
    active = driver._active
    if isinstance(active, OfflineDriver):
        if active.target != wanted:
            raise UnsupportedTargetError(
                f"this process already compiles Triton kernels for {active.target.backend}:{active.target.arch}, not {target}",
                "build one target per process",
            )
        return
    driver.set_active(OfflineDriver(wanted))


def current_target() -> Target:
    """The target that Triton compiles for in this process."""
    from triton.runtime import driver

    target = driver.active.get_current_target()
    return Target(target.backend, str(target.arch))


def jit_function(kernel: Any) -> Any:
    """The `@triton.jit` function under any number of autotune and heuristics wrappers.

    Raises:
        InvalidKernelError: There is none.
    """
    function = kernel
    while not hasattr(function, "device_caches"):
        if not hasattr(function, "fn"):
            raise InvalidKernelError(f"{kernel!r} is no @triton.jit function", "set `kernel` to the decorated function")
        function = function.fn
    return function


def in_process_key(function: Any, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """The text under which a launch with these arguments and options files its kernel, as Triton's own binder gives it.

    Made without the memo of `device_caches`, in which `1`, `True` and `1.0` collide.
    """
    from triton import knobs

    keywords: dict[str, Any] = {**arguments, **options}
    keywords["debug"] = keywords.get("debug", function.debug) or knobs.runtime.debug
    for name in ("instrumentation_mode", "fpsan_homomorphic_casts"):
        if hasattr(knobs.compilation, name):
            keywords[name] = getattr(knobs.compilation, name)
    binder = _caches(function)[-1]
    _, specialization, bound_options = binder(**keywords)
    hook = getattr(knobs.runtime, "add_stages_inspection_hook", None)
    if hook is not None and hasattr(knobs, "autotuning") and hasattr(knobs.autotuning, "listener"):  # 3.8 and later
        specialization.append(f'("custom_pipeline", {hook()[1]})')
    return str(_with_source_hashes(specialization)) + str(bound_options)


def find_kernel(function: Any, key: str) -> Any | None:
    """The compiled kernel that this process would launch for an in-process key, or None."""
    return _caches(function)[0].get(key)


def compile_only(function: Any, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Build or load one specialization, file it for later launches, launch nothing. Returns Triton's compiled kernel."""
    caches = _caches(function)
    if isinstance(caches[1], dict):
        caches[1].clear()  # the memo: after `1`, it would answer for `True` with the kernel of `1`
    return function.warmup(grid=(1,), **arguments, **options)


def load_module(compiled: Any) -> None:
    """Load the binary on the device, as the first launch would; must happen before CUDA graphs are captured."""
    compiled._init_handles()


def is_loaded(compiled: Any) -> bool:
    """Whether the binary is on the device."""
    return compiled.module is not None


def require_launchable(compiled: Any, target: Target) -> None:
    """Refuse a kernel that compiled but can never be loaded; without a device the compiler does not notice.

    Raises:
        CompileError: It needs more shared memory or threads than a block of this target can have.
    """
    metadata = compiled.metadata
    limit = _SHARED_BYTES.get(int(target.arch)) if target.kind == "cuda" else 65536
    if limit is not None and metadata.shared > limit:
        raise CompileError(
            f"{metadata.name} compiles, but needs {metadata.shared:,} bytes of shared memory; {target} has {limit:,} per block",
            "use smaller blocks or fewer stages for this target",
        )
    n_threads = metadata.num_warps * target.warp_size
    if n_threads > _MAX_THREADS:
        raise CompileError(
            f"{metadata.name} compiles, but {metadata.num_warps} warps are {n_threads} threads; a block has {_MAX_THREADS}"
        )


@contextmanager
def listening(listener: Callable[..., None]) -> Iterator[None]:
    """While entered, call `listener` for each compile and each disk hit, before whoever listened already."""
    from triton import knobs

    previous, is_on = knobs.compilation.listener, True

    def chained(**event: Any) -> None:
        if is_on:
            listener(**event)
        if previous is not None:
            previous(**event)

    knobs.compilation.listener = chained
    try:
        yield
    finally:
        is_on = False
        if knobs.compilation.listener is chained:  # else somebody came after us, and keeps us inside
            knobs.compilation.listener = previous


@contextmanager
def on_module_load(note: Callable[[str], None]) -> Iterator[None]:
    """While entered, call `note` with the name of each kernel whose GPU code is loaded, before it is."""
    from triton import knobs

    def load(module: Any, function: Any, name: str, *_: Any, **__: Any) -> None:
        del module, function
        note(name)

    knobs.runtime.kernel_load_start_hook.add(load)
    try:
        yield
    finally:
        knobs.runtime.kernel_load_start_hook.remove(load)


def function_path(function: Any) -> str:
    """`module:qualname` of a jit function."""
    return f"{function.module}:{getattr(function.fn, '__qualname__', function.__name__)}"


def specialization(
    function: Any, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, tuple[Any, Any]], dict[str, Any]]:
    """What a launch with these arguments is compiled for: parameter -> (type, value or attribute), and all options."""
    caches = _caches(function)
    _, found, bound = caches[-1](**arguments, **options, debug=bool(function.debug))
    parsed = caches[-2].parse_options(dict(bound))
    return dict(zip(function.arg_names, found, strict=False)), vars(parsed)


def replay_text(function: Any) -> str:
    """What `JITFunction.preload` needs to make the specialization that is being compiled, in this thread, again.

    Empty where the compile did not come from a launch, or holds what has no text.
    """
    from triton.runtime import jit

    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "_do_compile" and frame.f_locals.get("self") is function):
        frame = frame.f_back
    if frame is None:
        return ""
    at = frame.f_locals
    parts = [function._fn_name, at["signature"], at["constexprs"], at["attrs"], at["options"], at["key"]]
    if "target" in inspect.signature(jit.serialize_specialization_data).parameters:
        parts.append(at["target"])
    try:
        return str(jit.serialize_specialization_data(*parts))
    except TypeError:
        return ""


def forget_uses(function: Any) -> None:
    """Empty Triton's memo of launches; the next launch of each specialization writes it there again."""
    memo = _caches(function)[1]
    if isinstance(memo, dict):
        memo.clear()


def used_keys(function: Any) -> set[str] | None:
    """In-process keys of the launches since `forget_uses`; None where this version of Triton has no memo."""
    memo = _caches(function)[1]
    return {*memo.copy().values()} if isinstance(memo, dict) else None


@contextmanager
def clear_without_gpu() -> Iterator[None]:
    """While entered, Triton's "0 active drivers" becomes a `NoDeviceError`."""
    try:
        yield
    except RuntimeError as exc:
        if "active drivers" in str(exc):
            raise NoDeviceError(
                "this process has no GPU, and nothing was built for another one: it cannot launch"
            ) from exc
        raise


def _caches(function: Any) -> Any:
    """(compiled kernels by key, memo or target, ..., binder) of the current device; the binder is always last."""
    from triton.runtime import driver

    return function.device_caches[driver.active.get_current_device()]


def _with_source_hashes(value: Any) -> Any:
    """As Triton writes its key: a jitted function given as an argument stands there as the hash of its source."""
    if isinstance(value, list):
        return [_with_source_hashes(item) for item in value]
    if isinstance(value, tuple):
        items = [_with_source_hashes(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value.cache_key if hasattr(value, "cache_key") else value
