"""Compile-only descriptors of arguments: what a compiler looks at, with no memory behind it.

One `TensorSpec` serves all backends. Triton looks at dtype and alignment and never at a shape; CuTeDSL looks at everything;
TileLang reads shapes and dtypes from its factory's arguments. `IntClass` is Triton's view of an integer argument.
"""

import enum
import math
from dataclasses import dataclass
from typing import Self

from jitwarm.errors import InvalidKernelError

_ITEMSIZE_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "uint32": 4, "float32": 4,
    "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip
_DIVISIBILITY = 16
_INT32_MIN, _INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Dim:
    """A dynamic extent: known at the launch only.

    Attributes:
        name: Extents of one name are one symbol in a compiled kernel.
        divisible_by: What the compiler may assume of every value.
    """

    name: str
    divisible_by: int = 1


@dataclass(frozen=True)
class TensorSpec:
    """A tensor argument without a tensor.

    Attributes:
        dtype: A torch dtype's name, e.g. `"bfloat16"`.
        shape: Outermost first. An int is static, a `str` or `Dim` is a dynamic extent.
        strides: In elements, or None for row-major and compact.
        aligned: Whether the data pointer is a multiple of `align_bytes`. A fresh allocation is; a view with an offset may
            not be, and compiles to another kernel.
        align_bytes: What `aligned` promises.
        ptr_range_bytes: Upper bound of the storage's size, where it is known. AMD's compiler makes another kernel for
            storages of at most 2 GiB; without this the bound is computed if the shape is static, else taken as unknown.

    Raises:
        InvalidKernelError: An unknown dtype, strides of another length than the shape, or an alignment below one element.
    """

    dtype: str
    shape: tuple[int | str | Dim, ...]
    strides: tuple[int | str | Dim, ...] | None = None
    aligned: bool = True
    align_bytes: int = 16
    ptr_range_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _ITEMSIZE_BYTES:
            raise InvalidKernelError(
                f"TensorSpec: unknown dtype {self.dtype!r}",
                f"give the name of a torch dtype, e.g. dtype_name(x.dtype); known: {', '.join(_ITEMSIZE_BYTES)}",
            )
        if self.aligned and self.align_bytes < self.itemsize_bytes:
            raise InvalidKernelError(
                f"TensorSpec: align_bytes={self.align_bytes} is less than one {self.dtype}",
                f"a pointer to {self.dtype} is aligned to {self.itemsize_bytes} bytes at least",
            )
        if self.strides is not None and len(self.strides) != len(self.shape):
            raise InvalidKernelError(f"TensorSpec: {len(self.shape)} extents, but {len(self.strides)} strides")

    @property
    def itemsize_bytes(self) -> int:
        """Bytes per element."""
        return _ITEMSIZE_BYTES[self.dtype]

    @property
    def storage_bytes(self) -> int | None:
        """`ptr_range_bytes`, else the size of a compact tensor of this shape, else None where an extent is dynamic."""
        if self.ptr_range_bytes is not None:
            return self.ptr_range_bytes
        static = [extent for extent in self.shape if isinstance(extent, int)]
        return math.prod(static) * self.itemsize_bytes if len(static) == len(self.shape) else None


class IntClass(enum.Enum):
    """What Triton distinguishes of an integer argument: 1, a multiple of 16, or other; in 32 or 64 bits.

    `IntClass.of(n)` in `dispatch` gives the class that a launch with `n` would have, so one key field stands for all its
    values. `value` is a representative integer.
    """

    ONE = 1
    MULTIPLE_OF_16 = 16
    OTHER = 17
    MULTIPLE_OF_16_I64 = 2**32
    OTHER_I64 = 2**32 + 1

    @classmethod
    def of(cls, value: int) -> Self:
        """The class of `value`. 0 counts as a multiple of 16, as it does in Triton."""
        if value == 1:
            return cls(1)
        wide = not _INT32_MIN <= value <= _INT32_MAX
        if value % _DIVISIBILITY == 0:
            return cls(2**32 if wide else 16)
        return cls(2**32 + 1 if wide else 17)
