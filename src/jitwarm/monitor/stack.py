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

    Keys of different classes do not meet: a frame's value counts for the kernel whose `CompileKey` it is.
    """
    by_type = {record.kernel.CompileKey: record for record in records}
    found = None
    for frame in _frames():
        values = frame.f_locals
        if found is None:
            found = next(
                (Asked(by_type[type(value)], value) for value in values.values() if type(value) in by_type), None
            )
        if (
            found is not None
            and values.get("self") is found.record.kernel
            and isinstance(values.get("inputs"), Mapping)
        ):
            return Asked(found.record, found.key, dict(values["inputs"]))
    return found


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
