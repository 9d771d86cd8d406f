"""What kernel authors subclass: `JitKernel`.

Adapters derive their own base classes (`TritonKernel`, ...) from it. It stands above `tracing`, so that a dispatch can be
checked where it is defined, and below the backends.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import MEMBERS
from jitwarm.contract.keys import key_identity, require_frozen
from jitwarm.errors import InvalidKernelError
from jitwarm.tracing.definition import definition_fault


class JitKernel(ABC):
    """A kernel that declares what it can become.

    Subclasses give a frozen dataclass `CompileKey`, `dispatch`, `get_warmup_keys` and a compile-only `compile`. The class is
    also a structural protocol: `isinstance(x, JitKernel)` holds for any object whose class has the four members.

    A subclass is checked when it is defined; `class K(JitKernel, trace=False)` skips the part about `dispatch`, for a kernel
    whose keys are listed by hand.

    Attributes:
        name: The kernel's part of its id; None means the class's name.
        backend: The backend's name, where one backend compiles all keys; for reports.
    """

    CompileKey: ClassVar[type]
    name: str | None = None
    backend: str | None = None
    extra_key_types: ClassVar[tuple[type, ...]] = ()

    @abstractmethod
    def dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Map runtime arguments to the compile key that serves them: ordinary Python that knows nothing of warm-up."""

    @abstractmethod
    def get_warmup_keys(self, config: WarmupConfig) -> Iterable[Any]:
        """The keys that `config` can reach; usually `jitwarm.trace_dispatch(self.dispatch, ...)`."""

    @abstractmethod
    def compile(self, key: Any) -> Any:
        """Build or load one specialization for `jitwarm.current_target()`. Launches nothing, allocates no tensor."""

    def is_for_rank(self, config: WarmupConfig) -> bool:
        """Whether the rank that `config` describes uses this kernel at all; elsewhere its keys are `skipped`.

        For example `return config.is_last_pp_rank` for a kernel of the sampler.
        """
        del config
        return True

    def __init_subclass__(cls, *, trace: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if inspect.isabstract(cls) or "CompileKey" not in vars(cls):
            return
        require_frozen(cls.CompileKey)
        if trace:
            _check_dispatch(cls)

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        if cls is JitKernel:
            return all(any(name in vars(base) for base in other.__mro__) for name in MEMBERS) or NotImplemented
        return NotImplemented


class CallableKernel(JitKernel):
    """A kernel that can also be run: positional arguments are launched, keyword arguments decide the key.

    Calling costs one `dispatch` in Python and one look-up, some microseconds; a launch path that counts them calls
    `launch` with a key that it kept, or the compiled object itself.
    """

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Dispatch on `inputs` and launch with `args`; compiles only if this key is not warm."""
        return self.launch(self.dispatch(**inputs), *args)

    @abstractmethod
    def launch(self, key: Any, *args: Any) -> Any:
        """Launch the specialization of `key`, and compile it first if it is not warm."""


class Table:
    """The compiled objects of one kernel, by key; `1` and `True` are two entries.

    A look-up is on the launch path, so keys of plain values are told apart by values and types, which is quicker than writing
    their text. Floats are not plain: `0.0` and `-0.0` are equal.
    """

    def __init__(self) -> None:
        self._objects: dict[Any, Any] = {}
        # What was there at `begin_use`. An object is found here once, and by `find` from then on.
        self._before: dict[Any, Any] | None = None

    def find(self, key: Any) -> Any | None:
        """The object of `key`, or None: then ask `first_use`."""
        return self._objects.get(key_identity(key))

    def first_use(self, key: Any) -> Any | None:
        """The object of `key` where it is asked for the first time since `begin_use`, or None."""
        identity = key_identity(key)
        found = (self._before or {}).get(identity)
        if found is not None:
            self._objects[identity] = found
        return found

    def put(self, key: Any, compiled: Any) -> None:
        """File `compiled` under `key`, over what was there."""
        self._objects[key_identity(key)] = compiled

    def holds(self, key: Any) -> bool:
        """Whether there is an object of `key`. No use of it."""
        identity = key_identity(key)
        return identity in self._objects or identity in (self._before or ())

    def begin_use(self) -> None:
        """From now on `used` tells which objects are asked for."""
        self._before = {**(self._before or {}), **self._objects}
        self._objects = {}

    @property
    def has_uses(self) -> bool:
        """Whether anything was asked for since `begin_use`."""
        return self._before is not None and bool(self._objects)

    def used(self, keys: Sequence[Any]) -> list[bool] | None:
        """Which of `keys` were asked for since `begin_use`; None before that."""
        return None if self._before is None else [key_identity(key) in self._objects for key in keys]


def _check_dispatch(cls: type) -> None:
    if fault := definition_fault(cls.__dict__.get("dispatch"), is_method=True):
        raise InvalidKernelError(*fault)
