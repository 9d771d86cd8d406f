"""The protocol of a kernel, the outcomes of a key, and a kernel as the registry knows it."""

import enum
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.keys import require_frozen
from jitwarm.errors import InvalidKernelError

MEMBERS = ("CompileKey", "dispatch", "get_warmup_keys", "compile")


@runtime_checkable
class Kernel(Protocol):
    """A kernel: any object with these four members. No import of jitwarm is needed.

    Attributes:
        CompileKey: A frozen dataclass; an instance names one specialization.
    """

    CompileKey: type

    def dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Map runtime arguments to the compile key that serves them. Ordinary Python that knows nothing of warm-up."""

    def get_warmup_keys(self, config: WarmupConfig) -> Iterable[Any]:
        """The keys that `config` can reach. May raise; then this kernel is one failed row and all others go on."""

    def compile(self, key: Any) -> Any:
        """Build the specialization of `key` for `current_target()`, or load it, and keep it for later calls.

        Launches nothing and allocates no tensor. May raise; then this key is one failed row. May return an `Outcome`,
        where it knows better than the backends' compile counters.
        """


class Outcome(enum.Enum):
    """How a key ended. `compiled` and `loaded` say how it became warm in this run, `already_warm` that nothing was to do."""

    COMPILED = "compiled"
    LOADED = "loaded"
    ALREADY_WARM = "already_warm"
    SKIPPED = "skipped"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    UNRESOLVED = "unresolved"

    @property
    def is_warm(self) -> bool:
        """Whether a launch of this key compiles nothing."""
        return self in (Outcome.COMPILED, Outcome.LOADED, Outcome.ALREADY_WARM)


@dataclass(frozen=True)
class RegisteredKernel:
    """A kernel with its origin.

    Attributes:
        id: `<plugin>:<kernel name>`, unique in a process.
        kernel: The author's object.
        plugin: The entry point's name.
        distribution: Name and version of the package that declares it, e.g. `jitwarm-example 0.1.0`.
        backend: The name of the backend that compiles it, or None where its `compile` alone knows.
        import_path: `module:attribute` where another process finds the object, if not through its plugin.
    """

    id: str
    kernel: Kernel
    plugin: str
    distribution: str
    backend: str | None = None
    import_path: str = ""

    @property
    def module(self) -> str:
        """The module that defines it, or what it stands for."""
        return str(getattr(self.kernel, "source_module", None) or type(self.kernel).__module__)


def kernel_name(kernel: object) -> str:
    """The object's `name`, else its `__qualname__` (a function), else its class's name."""
    name = getattr(kernel, "name", None)
    if isinstance(name, str) and name:
        return name
    return str(getattr(kernel, "__qualname__", None) or type(kernel).__name__)


def require_kernel(kernel: object) -> None:
    """Raise `InvalidKernelError` unless `kernel` has the four members and a frozen `CompileKey`."""
    missing = [name for name in MEMBERS if not hasattr(kernel, name)]
    if inspect.isclass(kernel):
        raise InvalidKernelError(f"{kernel.__qualname__} is a class", f"yield an instance: {kernel.__qualname__}()")
    if missing:
        raise InvalidKernelError(
            f"{kernel_name(kernel)} ({type(kernel).__name__}) is no kernel: it has no {', '.join(missing)}",
            f"a kernel has {', '.join(MEMBERS)}",
        )
    require_frozen(kernel.CompileKey)  # type: ignore[attr-defined]  # its presence was checked above
