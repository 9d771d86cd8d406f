"""`TileLangKernel`: a `@tilelang.jit` factory that declares its specializations."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jitwarm.authoring import CallableKernel, Table
from jitwarm.backends._tilelang import internals
from jitwarm.contract.backend import current_target
from jitwarm.errors import TargetError


class TileLangKernel(CallableKernel):
    """A TileLang kernel. Subclasses set `factory`, `CompileKey` and `dispatch`, `get_warmup_keys`, `factory_args`.

    Attributes:
        factory: The function that `@tilelang.jit` decorates, lazy (returns a PrimFunc) or eager. Leave its `target` unset.
    """

    backend = "tilelang"
    factory: ClassVar[Any]

    def __init__(self) -> None:
        self._table = Table()

    def factory_args(self, key: Any) -> Mapping[str, Any]:
        """The compile-time arguments of `factory`, by name; of an eager factory also its constant extents (`T.const`)."""
        raise NotImplementedError(f"{type(self).__qualname__}.factory_args is missing")

    def compile(self, key: Any) -> None:
        """Build or load one specialization, and file it where a call of `factory` finds it.

        Raises:
            CompileError: The compiler kept nothing on disk, or built for another architecture.
        """
        internals.require_factory(self.factory)
        try:
            target = current_target()
        except TargetError:
            target = None  # a call at run time: TileLang detects this process's GPU
        with internals.targeted(self.factory, target):
            compiled = internals.compile_and_file(self.factory, dict(self.factory_args(key)))
        if target is not None:
            internals.require_kept(compiled, target)
        self._table.put(key, compiled)

    def launch(self, key: Any, *args: Any) -> Any:
        """Call the compiled kernel with `args`: tensors and dynamic values, in the kernel's order."""
        return self.compiled(key)(*args)

    def compiled(self, key: Any) -> Any:
        """The compiled kernel of `key`; compiles it, for this process's GPU, if it is not warm."""
        found = self._table.find(key)
        if found is None:
            found = self._table.first_use(key)
        if found is None:
            self.compile(key)
            found = self._table.find(key)
        return found

    def begin_use(self) -> None:
        """From now on tell keys that are used from those that are not."""
        self._table.begin_use()

    def used(self, keys: Sequence[Any]) -> list[bool] | None:
        """Which of `keys` were launched since `begin_use`; None where all launches may be direct calls of the factory."""
        return self._table.used(keys) if self._table.has_uses else None

    def is_warm(self, key: Any) -> bool:
        """Whether a call finds the kernel of `key` in this process, here and in TileLang's own table."""
        return self._table.holds(key) and internals.is_filed(self.factory, dict(self.factory_args(key)))
