"""Autotune and heuristics wrappers, unrolled by hand.

Triton's own `Autotuner.warmup` stops at the first configuration that does not compile, and a heuristic above an autotuner
makes it benchmark. So each configuration is a key of its own here, and nothing is ever timed.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jitwarm.contract.descriptors import IntClass, TensorSpec
from jitwarm.errors import InvalidKernelError

_OPTIONS = ("num_warps", "num_ctas", "num_stages", "maxnreg", "ir_override")


@dataclass(frozen=True)
class TunedConfig:
    """One `triton.Config` as data.

    Attributes:
        arguments: The constexpr parameters that it sets, in its order.
        options: Its compile options, in the order in which the autotuner passes them.
    """

    arguments: tuple[tuple[str, Any], ...]
    options: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class TunedKey:
    """A key of an autotuned kernel: the author's key and one configuration. `config=None` is the choice between them."""

    key: Any
    config: TunedConfig | None


class Pointer:
    """What Triton reads of a tensor argument: a dtype and an address. `shape` is for heuristics that ask for it."""

    def __init__(self, spec: TensorSpec) -> None:
        torch = sys.modules.get("torch")
        self.dtype = getattr(torch, spec.dtype) if torch is not None else spec.dtype
        self.shape = spec.shape
        self._address = 0 if spec.aligned else 8

    def data_ptr(self) -> int:
        """An address with the declared alignment; there is nothing behind it."""
        return self._address


class BoundedPointer(Pointer):
    """A pointer into a storage of known size, on which AMD's compiler specializes."""

    def __init__(self, spec: TensorSpec, storage_bytes: int) -> None:
        super().__init__(spec)
        self._storage_bytes = storage_bytes

    def ptr_range(self) -> int:
        """Bytes of the storage."""
        return self._storage_bytes


class _ClassOnly:
    """Stands for an integer of which only the class is known, in front of a heuristic that wants its value."""

    def __init__(self, name: str, entry: IntClass) -> None:
        self._message = f"a heuristic or pruning function reads {name!r}, which launch_args gives only as {entry}"

    def _refuse(self, *_: Any) -> Any:
        raise InvalidKernelError(self._message, "give a representative value in launch_args instead of its class")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = _refuse
    __truediv__ = __rtruediv__ = __mod__ = __rmod__ = __lt__ = __le__ = __gt__ = __ge__ = __int__ = __index__ = _refuse
    __bool__ = __float__ = __and__ = __rand__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return bool(self._refuse(other))


def argument(entry: Any, *, bounded: bool) -> Any:
    """What is handed to Triton for one entry of `launch_args`; `bounded` tells it the size of storages (AMD)."""
    if isinstance(entry, TensorSpec):
        if bounded and entry.storage_bytes is not None:
            return BoundedPointer(entry, entry.storage_bytes)
        return Pointer(entry)
    return entry.value if isinstance(entry, IntClass) else entry


def layers(kernel: Any) -> Iterator[Any]:
    """The wrappers from the outermost inwards, without the `@triton.jit` function itself."""
    layer = kernel
    while not hasattr(layer, "device_caches"):
        yield layer
        layer = layer.fn


def autotuner(kernel: Any) -> Any | None:
    """The autotune wrapper, or None."""
    return next((layer for layer in layers(kernel) if hasattr(layer, "prune_configs")), None)


def decided_by_wrappers(kernel: Any) -> set[str]:
    """The parameters and options that a wrapper sets."""
    names: set[str] = set()
    for layer in layers(kernel):
        if hasattr(layer, "prune_configs"):
            for config in layer.configs:
                names.update(config.kwargs)
                names.update(_OPTIONS)
        else:
            names.update(getattr(layer, "values", ()))
    return names


def configurations(kernel: Any, entries: Mapping[str, Any]) -> list[TunedConfig]:
    """The configurations that the autotuner would try for these arguments, after its own pruning."""
    tuner = autotuner(kernel)
    return [] if tuner is None else [_as_data(config) for config in _pruned(kernel, entries, tuner)]


def resolved(kernel: Any, entries: Mapping[str, Any], config: TunedConfig | None) -> dict[str, Any]:
    """All parameters of one launch: the author's entries, the configuration's, and what the heuristics make of both."""
    merged = {**entries, **(dict(config.arguments) if config else {})}
    for layer in layers(kernel):
        for name, heuristic in (getattr(layer, "values", None) or {}).items():
            merged[name] = heuristic(_readable(merged))
    return merged


def call_pre_hook(kernel: Any, config: TunedConfig, arguments: dict[str, Any]) -> None:
    """Run the configuration's `pre_hook`, as the autotuner does before each launch: it may change a descriptor's block."""
    tuner = autotuner(kernel)
    for candidate in tuner.configs if tuner else ():
        if candidate.pre_hook is not None and _as_data(candidate) == config:
            candidate.pre_hook(arguments)


def pinned_choice(kernel: Any, entries: Mapping[str, Any]) -> TunedConfig | None:
    """The configuration that the tuner already holds for these arguments (pinned, or tuned earlier), or None."""
    tuner = autotuner(kernel)
    if tuner is None or not tuner.cache:
        return None
    found = tuner.cache.get(_tuning_key(tuner, entries))
    return _as_data(found) if found is not None else None


def stored_choice(kernel: Any, entries: Mapping[str, Any]) -> TunedConfig | None:
    """The configuration that Triton's own results on disk name the fastest, or None; where there is one, the tuner holds it now.

    Triton writes them where it tunes with `TRITON_CACHE_AUTOTUNING=1` or `cache_results`, into its cache directory, under a
    hash of function, configurations, arguments, versions and target. Nothing is timed here.
    """
    tuner = autotuner(kernel)
    if tuner is None or not hasattr(tuner, "check_disk_cache"):
        return None
    key = _tuning_key(tuner, entries)
    try:
        tuner.check_disk_cache(key, _pruned(kernel, entries, tuner), _refuse_to_time)
    except (
        _NotStoredError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # the latter: what a killed or foreign writer left
        return None
    return _as_data(tuner.cache[key])


class _NotStoredError(Exception):
    """Triton would have to time configurations."""


def _refuse_to_time() -> None:
    raise _NotStoredError


def _tuning_key(tuner: Any, entries: Mapping[str, Any]) -> tuple[Any, ...]:
    """Under what the tuner files its choice for a launch with these arguments."""
    known = _readable(entries)
    key = [known[name] for name in tuner.keys if name in known]
    key += [str(value.dtype) for name, value in known.items() if name in tuner.arg_names and hasattr(value, "dtype")]
    return tuple(key)


def _pruned(kernel: Any, entries: Mapping[str, Any], tuner: Any) -> list[Any]:
    """The tuner's own configuration objects that are left after its pruning."""
    known = {**_readable(entries), **_heuristic_values(kernel, entries, above=tuner)}
    tuner.nargs = {name: known[name] for name in tuner.arg_names if name in known}  # pruning functions read it
    try:
        return list(tuner.prune_configs({}))
    finally:
        tuner.nargs = None


def _heuristic_values(kernel: Any, entries: Mapping[str, Any], *, above: Any) -> dict[str, Any]:
    """What heuristics outside the autotuner have set by the time it prunes."""
    values: dict[str, Any] = {}
    for layer in layers(kernel):
        if layer is above:
            return values
        for name, heuristic in (getattr(layer, "values", None) or {}).items():
            values[name] = heuristic({**_readable(entries), **values})
    return values


def _readable(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries as user functions may look at them."""
    return {
        name: _ClassOnly(name, entry) if isinstance(entry, IntClass) else argument(entry, bounded=False)
        for name, entry in entries.items()
    }


def _as_data(config: Any) -> TunedConfig:
    options = tuple((name, value) for name in _OPTIONS if (value := getattr(config, name, None)) is not None)
    return TunedConfig(tuple(config.kwargs.items()), options)
