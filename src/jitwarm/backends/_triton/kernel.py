"""`TritonKernel`: a `@triton.jit` function that declares its specializations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from jitwarm.authoring import CallableKernel
from jitwarm.backends._triton import internals, watching, wrappers
from jitwarm.backends._triton.coverage import check_definition, check_entries
from jitwarm.backends._triton.wrappers import TunedConfig, TunedKey
from jitwarm.contract.backend import current_target
from jitwarm.contract.descriptors import IntClass, TensorSpec
from jitwarm.contract.kernel import Outcome
from jitwarm.contract.keys import distinct_keys, encode_key, format_key, key_identity
from jitwarm.errors import CompileError, Skipped, Unresolved


@dataclass(frozen=True)
class _Launch:
    """One specialization, ready for Triton: parameter -> argument, and options in launch order."""

    arguments: dict[str, Any]
    options: dict[str, Any]


class TritonKernel(CallableKernel):
    """A Triton kernel. Subclasses set `kernel`, `CompileKey` and the three methods `dispatch`, `get_warmup_keys`, `launch_args`.

    When a subclass is defined, every parameter and option that Triton compiles a new kernel for must be decided by something:
    a key field of the same name (case is ignored), `fixed`, `derived`, or an autotune or heuristics wrapper.

    Attributes:
        kernel: The `@triton.jit` function, wrapped by `@triton.autotune` and `@triton.heuristics` or not.
        options: Compile options in the order in which the launch writes them, e.g. `("num_warps", "num_stages")`. Their
            values are key fields of these names, or in `fixed`. The order is part of Triton's in-process key.
        fixed: Parameters and options with one value for all keys.
        derived: Parameters that follow from key fields of other names, e.g. `{"BLOCK_SIZE": ("hidden_size",)}`.
    """

    backend = "triton"
    extra_key_types = (TunedKey,)
    kernel: ClassVar[Any]
    options: ClassVar[Sequence[str]] = ()
    fixed: ClassVar[Mapping[str, Any]] = {}
    derived: ClassVar[Mapping[str, Sequence[str]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        is_whole = hasattr(cls, "kernel") and hasattr(cls, "CompileKey")
        if is_whole and vars(cls).keys() & {"kernel", "CompileKey", "options", "fixed", "derived"}:
            check_definition(cls)

    def launch_args(self, key: Any) -> Mapping[str, Any]:
        """What a launch of `key` passes for each parameter of the jit function, by name.

        Returns:
            A `TensorSpec` for a pointer, an `IntClass` or a representative int for an integer, any float for a float, the
            value itself for a constexpr. Entries of `fixed` and of wrappers may be left out.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.launch_args is missing")

    def launch_options(self, key: Any) -> dict[str, Any]:
        """The compile options that a launch of `key` passes, in its order: those of `options`.

        To be overridden where it is the key that says which options there are.
        """
        by_name = {field.name.lower(): getattr(key, field.name) for field in fields(key)}
        return {name: self.fixed[name] if name in self.fixed else by_name[name.lower()] for name in self.options}

    def compile(self, key: Any) -> Outcome | None:
        """Build or load one specialization through Triton's own `warmup`; on a device also load its binary.

        Raises:
            Skipped: This autotune configuration cannot compile; the autotuner skips it, too.
            Unresolved: The choice between autotune configurations, where none is pinned: it needs a device.
            CompileError: It compiled, but could never be loaded on the target.
        """
        config = key.config if isinstance(key, TunedKey) else None
        if isinstance(key, TunedKey) and config is None:
            return self._choose(key.key)
        launch = self._resolve(key)
        try:
            compiled = internals.compile_only(internals.jit_function(self.kernel), launch.arguments, launch.options)
            internals.require_launchable(compiled, current_target())
        except Exception as exc:
            if config is not None and _tuner_skips(exc):
                raise Skipped(f"this configuration cannot compile: {exc}", "the autotuner skips it as well") from exc
            raise
        if internals.has_real_driver():
            internals.load_module(compiled)
        return None

    def launch(self, key: Any, *args: Any, grid: Any) -> Any:  # type: ignore[override]  # no Triton launch without grid
        """Launch the specialization of `key`; Triton compiles it first if it is not warm.

        Args:
            key: What `dispatch` gave.
            args: The parameters that are neither constexpr nor fixed to a value, in the jit function's order.
            grid: As for `kernel[grid]`.

        Raises:
            NoDeviceError: This process has no GPU.
            TypeError: Another number of arguments than the kernel takes.
        """
        entries = {**self.fixed, **self.launch_args(key)}
        parameters = internals.jit_function(self.kernel).params
        given = [p.name for p in parameters if not p.is_constexpr and not self._has_fixed_value(p.name)]
        if len(args) != len(given):
            raise TypeError(
                f"{type(self).__qualname__} takes {len(given)} arguments ({', '.join(given)}), not {len(args)}"
            )
        static = {p.name: entries[p.name] for p in parameters if p.name not in given and p.name in entries}
        with internals.clear_without_gpu():
            return self.kernel[grid](**dict(zip(given, args, strict=True)), **static, **self.launch_options(key))

    def __call__(self, *args: Any, grid: Any, **inputs: Any) -> Any:
        """Dispatch on `inputs` and launch with `args` on `grid`."""
        return self.launch(self.dispatch(**inputs), *args, grid=grid)

    def expand_keys(self, keys: Iterable[Any]) -> list[Any]:
        """Each key of an autotuned kernel as one key per configuration, and the choice between them as a key of its own."""
        if wrappers.autotuner(self.kernel) is None:
            return list(keys)
        expanded: list[Any] = []
        for key in keys:
            configs = wrappers.configurations(self.kernel, {**self.fixed, **self.launch_args(key)})
            expanded += [TunedKey(key, config) for config in configs]
            if len(configs) > 1:
                expanded.append(TunedKey(key, None))
        return distinct_keys(expanded)

    def check_keys(self, keys: Iterable[Any]) -> list[str]:
        """Compare keys with what Triton's own binder makes of them.

        Returns:
            A warning for each group of keys that are one specialization to Triton.

        Raises:
            InvalidKernelError: A parameter has no entry, or its entry is decided by nothing that is in the key.
        """
        by_specialization: dict[str, list[Any]] = {}
        for key in keys:
            if isinstance(key, TunedKey) and key.config is None:
                continue
            check_entries(type(self), {**self.fixed, **self.launch_args(_own(key))})
            by_specialization.setdefault(self.in_process_key(key), []).append(key)
        return [
            f"{len(same)} keys are one specialization to Triton: " + " | ".join(format_key(key) for key in same)
            for same in by_specialization.values()
            if len(same) > 1
        ]

    def is_warm(self, key: Any) -> bool:
        """Whether a launch of `key` in this process would neither compile nor load."""
        if isinstance(key, TunedKey) and key.config is None:
            return False
        compiled = internals.find_kernel(internals.jit_function(self.kernel), self.in_process_key(key))
        return compiled is not None and (internals.is_loaded(compiled) or not internals.has_real_driver())

    def jit_functions(self) -> list[Any]:
        """The jit function below the wrappers."""
        return [internals.jit_function(self.kernel)]

    def used(self, keys: Sequence[Any]) -> list[bool] | None:
        """Which of `keys` a launch asked for since Triton's memo was emptied; None where that cannot be known."""
        used = internals.used_keys(internals.jit_function(self.kernel))
        return None if used is None else [self._filed_as(key) in used for key in keys]

    def _filed_as(self, key: Any) -> str:
        """As `in_process_key`, kept: it takes Triton's binder a while. Empty for the choice between configurations."""
        filed = self.__dict__.setdefault("_filed", {})
        text = encode_key(key) if isinstance(key, TunedKey) else key_identity(key)
        if text not in filed:
            is_choice = isinstance(key, TunedKey) and key.config is None
            filed[text] = "" if is_choice else self.in_process_key(key)
        return str(filed[text])

    def specialization(self, key: Any) -> dict[str, str]:
        """What Triton compiles `key` for: parameter or option -> text. Empty for the choice between configurations."""
        if isinstance(key, TunedKey) and key.config is None:
            return {}
        launch = self._resolve(key)
        function = internals.jit_function(self.kernel)
        parameters, options = internals.specialization(function, launch.arguments, launch.options)
        texts = {
            name: watching.parameter_text(kind, value, is_divisible=value == "D")
            for name, (kind, value) in parameters.items()
        }
        return {**texts, **watching.options_text(options)}

    def in_process_key(self, key: Any) -> str:
        """The text under which Triton files the specialization of `key` in this process."""
        launch = self._resolve(key)
        return internals.in_process_key(internals.jit_function(self.kernel), launch.arguments, launch.options)

    def _resolve(self, key: Any) -> _Launch:
        config = key.config if isinstance(key, TunedKey) else None
        entries = {**self.fixed, **self.launch_args(_own(key))}
        merged = wrappers.resolved(self.kernel, entries, config)
        names = {p.name for p in internals.jit_function(self.kernel).params}
        bounded = internals.current_target().kind == "hip"
        arguments = {n: wrappers.argument(entry, bounded=bounded) for n, entry in merged.items() if n in names}
        if config is not None:
            wrappers.call_pre_hook(self.kernel, config, arguments)
        return _Launch(arguments, {**self.launch_options(_own(key)), **(dict(config.options) if config else {})})

    def _has_fixed_value(self, name: str) -> bool:
        """Whether `fixed` gives a value to launch with; a descriptor stands for a tensor that the caller has."""
        return name in self.fixed and not isinstance(self.fixed[name], TensorSpec | IntClass)

    def _choose(self, key: Any) -> Outcome:
        entries = {**self.fixed, **self.launch_args(key)}
        if wrappers.pinned_choice(self.kernel, entries) is not None:
            return Outcome.ALREADY_WARM
        if wrappers.stored_choice(self.kernel, entries) is not None:
            return Outcome.LOADED
        raise Unresolved(
            f"tuning needs a device ({encode_key(key)})",
            "all configurations are built; the first launch finds the best, or pin one: kernel.cache[tuning key] = config",
        )


def _own(key: Any) -> Any:
    """The author's key."""
    return key.key if isinstance(key, TunedKey) else key


def _tuner_skips(exc: Exception) -> bool:
    """Whether the autotuner counts this as a slow configuration instead of failing."""
    skipped = ("OutOfResources", "CompileTimeAssertionFailure", "PTXASError")
    return isinstance(exc, CompileError) or type(exc).__name__ in skipped


__all__ = ["TritonKernel", "TunedConfig", "TunedKey"]
