"""`CuteKernel`: a `@cute.jit` host function that declares its specializations."""

from collections.abc import Sequence
from types import FunctionType
from typing import Any, ClassVar

from jitwarm.authoring import CallableKernel, Table
from jitwarm.backends._cutedsl import internals
from jitwarm.contract.descriptors import Dim, TensorSpec


class CuteKernel(CallableKernel):
    """A CuTeDSL kernel. Subclasses set `host`, `CompileKey` and `dispatch`, `get_warmup_keys`, `compile_args`.

    Compiled objects use TVM-FFI: they are exported and loaded without a pickle, and take tensors and the current stream as
    they are.

    Attributes:
        host: The `@cute.jit` function.
        options: Further compiler options, e.g. `"--opt-level 2"`. Architecture and TVM-FFI are set already.
    """

    backend = "cutedsl"
    host: ClassVar[Any]
    options: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(vars(cls).get("host"), FunctionType):
            cls.host = staticmethod(cls.host)  # else Python would bind it and pass `self` as its first tensor

    def __init__(self) -> None:
        self._table = Table()

    def compile_args(self, key: Any) -> Sequence[Any]:
        """The arguments of `host` for one specialization, in its order.

        Returns:
            A `TensorSpec` for a tensor, `self.stream` for the stream, a wrapped scalar (`cutlass.Float32(1.0)`) for a runtime
            scalar, the value itself for a `cutlass.Constexpr`. A bare Python number for a runtime scalar would be compiled in.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.compile_args is missing")

    @property
    def stream(self) -> Any:
        """Stands for the stream parameter: the launch takes the caller's current stream from the environment."""
        from cutlass.cute.runtime import make_fake_stream

        return make_fake_stream(use_tvm_ffi_env_stream=True)

    def compile(self, key: Any) -> None:
        """Compile or load one specialization and keep the callable."""
        from cutlass import cute

        symbols: dict[str, Any] = {}
        arguments = [_fake(a, symbols) if isinstance(a, TensorSpec) else a for a in self.compile_args(key)]
        options = f"--enable-tvm-ffi {self.options}".strip()
        self._table.put(key, cute.compile(self.host, *arguments, options=options))

    def launch(self, key: Any, *args: Any) -> Any:
        """Call the compiled host function with `args`: its parameters but for constexprs and the stream."""
        return self.compiled(key)(*args)

    def compiled(self, key: Any) -> Any:
        """The compiled host function of `key`; compiles it, for this process's GPU, if it is not warm."""
        found = self._table.find(key)
        if found is None:
            found = self._table.first_use(key)
        if found is None:
            with internals.pinned_to_device():
                self.compile(key)
            found = self._table.find(key)
        return found

    def begin_use(self) -> None:
        """From now on tell keys that are used from those that are not."""
        self._table.begin_use()

    def used(self, keys: Sequence[Any]) -> list[bool] | None:
        """Which of `keys` were launched since `begin_use`; None before it."""
        return self._table.used(keys)

    def is_warm(self, key: Any) -> bool:
        """Whether the callable of `key` is kept in this process."""
        return self._table.holds(key)


def _fake(spec: TensorSpec, symbols: dict[str, Any]) -> Any:
    """A CuTeDSL fake tensor; dynamic extents of one name share one symbol among all arguments of a call."""
    from cutlass import cute
    from cutlass.cute.runtime import make_fake_compact_tensor, make_fake_tensor

    def extent(value: int | str | Dim) -> Any:
        if isinstance(value, int):
            return value
        dim = value if isinstance(value, Dim) else Dim(value)
        if dim.name not in symbols:
            symbols[dim.name] = cute.sym_int(divisibility=dim.divisible_by)
        return symbols[dim.name]

    dtype = internals.numeric_type(spec.dtype)
    shape = tuple(extent(value) for value in spec.shape)
    align = spec.align_bytes if spec.aligned else spec.itemsize_bytes
    if spec.strides is not None:
        return make_fake_tensor(dtype, shape, tuple(extent(value) for value in spec.strides), assumed_align=align)
    return make_fake_compact_tensor(dtype, shape, stride_order=tuple(reversed(range(len(shape)))), assumed_align=align)
