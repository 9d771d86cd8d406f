"""What the stack knows while a kernel compiles: who asked, for which key, with which inputs. Read on the compile path only."""

import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import FrameType
from typing import Any

from jitwarm.contract.kernel import RegisteredKernel

_INSIDE = (
    "jitwarm",
    "triton",
    "cutlass",
    "tilelang",
    "tvm",
    "tvm_ffi",
    "torch",
    "flashinfer",
    "contextlib",
    "functools",
    "concurrent",
    "threading",
)
_MAX_DEPTH = 200


@dataclass(frozen=True)
class Asked:
    """A key that was asked for.

    Attributes:
        record: Its kernel.
        key: The key.
        inputs: What `dispatch` was given, where that is known.
    """

    record: RegisteredKernel
    key: Any
    inputs: Mapping[str, Any] = field(default_factory=dict)


def call_site() -> str:
    """`file:line in function` of the innermost caller outside jitwarm and the compilers; else the thread's name."""
    for frame in _frames():
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _INSIDE:
            return f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_qualname}"
    return f"thread {threading.current_thread().name}"


def asked_key(records: Iterable[RegisteredKernel]) -> Asked | None:
    """The key that is being launched, of one of these kernels: the innermost value of its key class on the stack.

    Where kernels share a key class, the one counts whose method is on the stack as well, else the first.
    """
    known = list(records)
    key: Any = None
    kin: list[RegisteredKernel] = []
    for frame in _frames():
        values = frame.f_locals
        if not kin:
            key, kin = _key_among(values.values(), known)
        if owner := _owner(kin, values.get("self")):
            kin, inputs = [owner], values.get("inputs")  # of `CallableKernel.__call__`
            if isinstance(inputs, Mapping):
                return Asked(owner, key, dict(inputs))
    return Asked(kin[0], key) if kin else None


def _key_among(values: Iterable[Any], records: Iterable[RegisteredKernel]) -> tuple[Any, list[RegisteredKernel]]:
    for value in values:
        if kin := [record for record in records if record.kernel.CompileKey is type(value)]:
            return value, kin
    return None, []


def _owner(kin: list[RegisteredKernel], obj: Any) -> RegisteredKernel | None:
    same = (record for record in kin if record.kernel is obj)
    alike = (record for record in kin if type(record.kernel) is type(obj))
    return next(same, None) or next(alike, None)


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no other way to see who called
    for _ in range(_MAX_DEPTH):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _short(file: str) -> str:
    """The last three parts of a path: enough to find it, and the same on every host."""
    return "/".join(PurePath(file).parts[-3:]).lstrip("/")
