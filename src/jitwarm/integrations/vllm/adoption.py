"""Take over the kernels that vLLM registered for its own warm-up.

vLLM's kernels satisfy our protocol: they have `CompileKey`, `dispatch`, `get_warmup_keys` and `compile`. Their registry holds
each with the arguments for which it wants keys. Taken over, they are rows of our plan: one that fails does not end the start, and
a key that one rank has built is loaded by the others. vLLM's registry is left empty, or it would compile everything again.

All of it is found by what it has; where anything looks different, nothing is taken and vLLM does its own warm-up.
"""

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.keys import encode_key
from jitwarm.errors import UnencodableKey
from jitwarm.hookspecs import hookimpl
from jitwarm.registry import Registry

_PLUGIN = "vllm"
_TAKEN = "_jitwarm_taken"

Registration = tuple[tuple[Any, ...], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class LocalKey:
    """Stands for a key that has no canonical text: it means something in this process only."""

    n: int
    text: str


class AdoptedKernel:
    """One of vLLM's kernels, with the arguments it was registered with.

    Attributes:
        name: Its import path, if the object is found there; else its class's name.
        import_path: `module:attribute` where a compile process finds it, or empty.
        source_module: The module that defines its class.
        is_local: Whether its keys mean something in this process only, so that they are compiled here.
    """

    def __init__(self, kernel: Any, registrations: Sequence[Registration], vllm_config: Any, n: int) -> None:
        place = _import_place(kernel)
        self.name = ".".join(place) if place else f"{type(kernel).__qualname__}#{n}"
        self.is_autotuned = bool(getattr(kernel, "_run_autotune", False))
        self.source_module = type(kernel).__module__
        self._kernel = kernel
        self._registrations = registrations
        self._vllm_config = vllm_config
        self._local: dict[LocalKey, Any] = {}
        # What launches to tune, and what is not importable, is compiled where it was registered.
        self.import_path = ":".join(place) if place and not self.is_autotuned else ""
        self.is_local = not self.import_path

    @property
    def CompileKey(self) -> type:  # noqa: N802 - the name of the contract
        """The kernel's own class, or that of the keys which stand for its own."""
        return LocalKey if self._local else getattr(self._kernel, "CompileKey", LocalKey)

    def dispatch(self, **arguments: Any) -> Any:
        """The kernel's own."""
        return self._kernel.dispatch(**arguments)

    def get_warmup_keys(self, config: WarmupConfig) -> Iterable[Any]:
        """The keys of all registrations, expanded as vLLM expands them."""
        del config
        keys: list[Any] = []
        for args, kwargs in self._registrations:
            wants_config = "vllm_config" in inspect.signature(self._kernel.get_warmup_keys).parameters
            inject = {"vllm_config": self._vllm_config} if wants_config and not args and not kwargs else {}
            keys += self._kernel.get_warmup_keys(*args, **kwargs, **inject)
        try:
            for key in keys:
                encode_key(key)
        except UnencodableKey:
            self.is_local = True
            self._local = {LocalKey(n, repr(key)): key for n, key in enumerate(dict.fromkeys(keys))}
            return list(self._local)
        return keys

    def compile(self, key: Any) -> None:
        """The kernel's own."""
        self._kernel.compile(self._local.get(key, key) if self._local else key)

    def check_keys(self, keys: Sequence[Any]) -> Iterable[str]:
        """A note where warming up launches."""
        if self.is_autotuned and keys:
            yield f"autotuned: vLLM's own compile launches it on the device to choose a configuration ({len(keys)} keys)"


class _Adopted:
    """The plugin that yields them."""

    def __init__(self, kernels: Sequence[AdoptedKernel]) -> None:
        self._kernels = kernels

    @hookimpl
    def jitwarm_kernels(self) -> Sequence[AdoptedKernel]:
        """Those that launch nothing first."""
        return sorted(self._kernels, key=lambda kernel: kernel.is_autotuned)


@contextmanager
def adopted(worker: Any, registry: Registry) -> Iterator[int]:
    """While entered, what a worker's runner has registered is in our registry, if vLLM would warm it up.

    What we took is handed back where our warm-up fails: then vLLM does its own. Yields the number of kernels taken over.
    """
    theirs = getattr(getattr(worker, "model_runner", None), "jit_warmup_registry", None)
    kernel_config = getattr(worker.vllm_config, "kernel_config", None)
    if theirs is None or not getattr(kernel_config, "enable_jit_warmup", False) or _is_cpu():
        yield 0
        return
    n_kernels = take_over(theirs, registry)
    try:
        yield n_kernels
    except BaseException:
        hand_back(theirs)
        raise
    if n_kernels and _PLUGIN not in registry.plugins:  # it was refused when its kernels were listed
        hand_back(theirs)


def take_over(theirs: Any, registry: Registry) -> int:
    """Move the registrations of one of vLLM's registries into ours; all of them, or none if they look strange.

    They are also remembered on their registry: an elastic scale-up warms up once more, with the same ones.

    Args:
        theirs: A `JitWarmupRegistry`.
        registry: Ours.

    Returns:
        The number of kernels that were taken over.
    """
    now = getattr(theirs, "_registrations", None)
    if not isinstance(now, dict) or not all(map(_is_known, now.items())):
        return 0
    registrations = _merged(getattr(theirs, _TAKEN, {}), now)
    config = getattr(theirs, "vllm_config", None)
    kernels = [AdoptedKernel(kernel, list(rows), config, n) for n, (kernel, rows) in enumerate(registrations.items())]
    if not kernels:
        return 0
    version = getattr(sys.modules.get("vllm"), "__version__", "")
    registry.add(_PLUGIN, _Adopted(kernels), f"vllm {version}".strip())
    if _PLUGIN not in registry.plugins:
        return 0
    setattr(theirs, _TAKEN, registrations)
    now.clear()
    return len(kernels)


def hand_back(theirs: Any) -> None:
    """Give one of vLLM's registries back what was taken from it."""
    taken = vars(theirs).pop(_TAKEN, {})
    theirs._registrations.update(_merged(taken, theirs._registrations))  # noqa: SLF001 - where it was taken from


def _merged(before: dict[Any, list[Registration]], now: dict[Any, list[Registration]]) -> dict[Any, list[Registration]]:
    """Every kernel with all its rows; equal rows give equal keys, which are planned once."""
    return {kernel: [*before.get(kernel, ()), *now.get(kernel, ())] for kernel in {**before, **now}}


def _is_known(item: tuple[Any, Any]) -> bool:
    """Whether an entry has the shape `kernel: [(args, kwargs), ...]`."""
    kernel, rows = item
    callables: list[Callable[..., Any] | None] = [getattr(kernel, n, None) for n in ("get_warmup_keys", "compile")]
    return (
        all(map(callable, callables))
        and isinstance(rows, list)
        and all(isinstance(row, tuple) and [type(part) for part in row] == [tuple, dict] for row in rows)
    )


def _import_place(kernel: Any) -> tuple[str, str] | None:
    """(module, attribute) under which exactly this object is found."""
    for name in dict.fromkeys((type(kernel).__module__, getattr(kernel, "__module__", ""))):
        module = sys.modules.get(name)
        for attribute, value in list(vars(module).items()) if module else ():
            if value is kernel:
                return name, attribute
    return None


def _is_cpu() -> bool:
    """Whether vLLM runs on its CPU platform, where it skips this warm-up itself."""
    platform = getattr(sys.modules.get("vllm.platforms"), "current_platform", None)
    is_cpu = getattr(platform, "is_cpu", None)
    return bool(is_cpu()) if callable(is_cpu) else False
