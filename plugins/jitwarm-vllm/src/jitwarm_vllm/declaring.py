"""How a declaration meets the vLLM that is installed: by parameter name, and with a reason where it cannot."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from jitwarm import JitKernel, JitwarmError, Skipped, TritonKernel, Unresolved, WarmupConfig
from jitwarm_vllm import real


class VllmKernel(TritonKernel):
    """A kernel of vLLM. Subclasses say where it is; `kernel` and `module` are set when vLLM is imported.

    Attributes:
        place: Module and name of the `@triton.jit` function.
        module: vLLM's module, whose constants and functions decide with the configuration.
    """

    place: tuple[str, str]
    module: Any

    @classmethod
    def is_reached(cls, config: WarmupConfig) -> bool:
        """Whether the configuration launches this kernel at all."""
        raise NotImplementedError(f"{cls.__qualname__}.is_reached is missing")

    def named(self, key: Any) -> dict[str, Any]:
        """The key's fields that are parameters of the kernel, by the parameters' names; case is ignored."""
        values = {field.name.lower(): getattr(key, field.name) for field in fields(key)}
        return {name: values[name.lower()] for name in _parameters(self.kernel) if name.lower() in values}


class Absent(JitKernel):
    """Stands for a kernel that cannot be declared over this vLLM. It lists no key, and says why where it would be reached."""

    @dataclass(frozen=True)
    class CompileKey:
        """There is none."""

    def __init__(self, declaration: type[VllmKernel], reason: JitwarmError) -> None:
        self.name = declaration.name
        self.reason = reason
        self._is_reached = declaration.is_reached

    def dispatch(self) -> CompileKey:
        """Nothing decides anything."""
        return self.CompileKey()

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """No key; the reason, if the configuration would launch the kernel."""
        if self._is_reached(config):
            raise self.reason
        return []

    def compile(self, key: CompileKey) -> None:
        """Nothing."""


def declared(declaration: type[VllmKernel]) -> JitKernel:
    """The declaration over vLLM's own kernel, or `Absent`.

    Side effects: imports vLLM's module, see `real.module`.
    """
    module_name, function_name = declaration.place
    try:
        module = real.module(module_name)
    except ModuleNotFoundError as exc:
        if not (exc.name or "").startswith("vllm"):
            return Absent(declaration, Unresolved(f"{module_name} cannot be imported: {exc}"))
        return Absent(declaration, _absent(module_name))
    except ImportError as exc:
        return Absent(declaration, Unresolved(f"{module_name} cannot be imported: {exc}"))
    function = getattr(module, function_name, None)
    if function is None:
        return Absent(declaration, _absent(f"{module_name}.{function_name}"))
    return _over(declaration, module, function)


def _over(declaration: type[VllmKernel], module: Any, function: Any) -> JitKernel:
    """By parameter name: what this version's kernel does not take is left out, what nobody declared is a reason."""
    taken = {*_parameters(function), *declaration.options}
    members = {
        "kernel": function,
        "module": module,
        "fixed": {name: value for name, value in declaration.fixed.items() if name in taken},
        "derived": {name: sources for name, sources in declaration.derived.items() if name in taken},
    }
    try:
        return type(declaration.__name__, (declaration,), members)()
    except JitwarmError as exc:
        return Absent(declaration, Unresolved(f"this version's kernel is not the declared one: {exc.message}"))


def entries(kernel: VllmKernel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `given` that this version's kernel takes, for `launch_args`."""
    names = _parameters(kernel.kernel)
    return {name: entry for name, entry in given.items() if name in names}


def _parameters(function: Any) -> list[str]:
    while not hasattr(function, "params"):
        function = function.fn
    return [parameter.name for parameter in function.params]


def _absent(what: str) -> Skipped:
    return Skipped(f"absent in this version of vLLM: {what}")
