"""Everything of TileLang that is no public interface, in one place. Tried with 0.1.15.

TileLang's disk key holds the target as the text of its dictionary, so the exact dictionary matters: `sm_90` and `sm_90a` are
two entries, and only the second can build WGMMA kernels.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jitwarm.contract.target import Target
from jitwarm.errors import CompileError, InvalidKernelError

_VARIABLE = "TILELANG_DEFAULT_TARGET"


def target_dict(target: Target) -> dict[str, str]:
    """The target as a process on that device would detect it."""
    if target.kind == "hip":
        return {"kind": "hip", "mcpu": target.arch}
    return {"kind": "cuda", "arch": target.sm}


@contextmanager
def pinned(target: Target) -> Iterator[None]:
    """While entered, TileLang functions that name no target of their own build for `target`."""
    before = os.environ.get(_VARIABLE)
    os.environ.setdefault("TILELANG_PRINT_ON_COMPILATION", "0")  # two lines per kernel, in the middle of a progress bar
    os.environ[_VARIABLE] = json.dumps(target_dict(target))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


@contextmanager
def targeted(factory: Any, target: Target | None) -> Iterator[None]:
    """While entered, `factory` builds for `target` whatever its decorator says; None leaves it as it is.

    Also keeps `out_idx` as the author wrote it: 0.1.15 rewrites `[-1]` in place when it loads from disk, and that list is
    part of the key, so every later kernel of the same factory would miss.
    """
    before, out_idx = factory.target, factory.out_idx
    if target is not None:
        factory.target = target_dict(target)
    factory.out_idx = list(out_idx) if isinstance(out_idx, list) else out_idx
    try:
        yield
    finally:
        factory.target, factory.out_idx = before, out_idx


def require_factory(factory: Any) -> None:
    """Raise `InvalidKernelError` unless `factory` is what `@tilelang.jit` makes; on some platforms it makes a bare function."""
    if not hasattr(factory, "compile") or not hasattr(factory, "_kernel_cache"):
        raise InvalidKernelError(
            f"{factory!r} was not made by @tilelang.jit: it cannot be compiled without being launched",
            "set `factory` to the decorated function",
        )


def compile_and_file(factory: Any, arguments: Mapping[str, Any]) -> Any:
    """Build or load one specialization and fill the caches that a call of `factory` looks in; `.compile` alone does not.

    A lazy factory (it returns a PrimFunc) is called, which launches nothing; of an eager one, whose call launches, the
    table is filled by hand under TileLang's own key.
    """
    kernel = factory.compile(**arguments)
    key, _ = factory.func.parse_args(**arguments)
    factory._kernel_cache[key] = kernel
    if factory.mode == "lazy":
        factory(**arguments)
    return kernel


def is_filed(factory: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a call with these arguments finds its kernel in this process."""
    if factory.mode == "auto":
        return False  # nothing was compiled yet
    key, _ = factory.func.parse_args(**arguments)
    return key in factory._kernel_cache


@contextmanager
def counting(on_compile: Callable[[], None], on_kernel: Callable[[Path], None]) -> Iterator[None]:
    """While entered, call `on_compile` for each real compile and `on_kernel` with each cache entry made or found."""
    from tilelang.cache import kernel_cache
    from tilelang.jit.kernel import JITKernel

    original_build, original_cached = JITKernel._compile_and_create_adapter, kernel_cache.KernelCache.cached

    @functools.wraps(original_build)
    def build(*args: Any, **kwargs: Any) -> Any:
        on_compile()
        return original_build(*args, **kwargs)

    @functools.wraps(original_cached)
    def cached(*args: Any, **kwargs: Any) -> Any:
        kernel = original_cached(*args, **kwargs)
        entry = getattr(kernel, "_tilelang_cache_path", None)
        if entry:
            on_kernel(Path(entry))
        return kernel

    JITKernel._compile_and_create_adapter = build
    kernel_cache.KernelCache.cached = cached
    try:
        yield
    finally:
        JITKernel._compile_and_create_adapter = original_build
        kernel_cache.KernelCache.cached = original_cached


def require_kept(kernel: Any, target: Target) -> None:
    """Refuse a kernel whose disk entry is missing or for another architecture: TileLang only logs a failed save.

    Raises:
        CompileError: What was expected, and what is there.
    """
    entry = getattr(kernel, "_tilelang_cache_path", None)
    library = Path(entry) / "executable.so" if entry else None
    if library is None or not library.is_file():
        raise CompileError(
            f"TileLang compiled the kernel, but kept no entry on disk ({entry})",
            "unset TILELANG_DISABLE_CACHE, and check that TILELANG_CACHE_DIR can be written",
        )
    if target.kind == "cuda" and f"arch {target.sm}".encode() not in library.read_bytes():
        raise CompileError(f"asked for {target.sm}, but {library} holds no code for it")
