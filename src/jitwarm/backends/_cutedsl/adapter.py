"""`CuteBackend`: CuTeDSL behind the backend contract."""

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from jitwarm.backends._cutedsl import exchange, internals
from jitwarm.backends._cutedsl.kernel import CuteKernel
from jitwarm.backends._cutedsl.watching import function_path, watching
from jitwarm.backends.packages import installed_version, missing_package
from jitwarm.contract.backend import Backend, CompileCount, Seen
from jitwarm.contract.target import Target, Toolchain
from jitwarm.environment import CACHE_VARIABLES
from jitwarm.patches import when_imported

_FIRST_OFFLINE = (4, 5, 3)
_MIN_ARCH = 80
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Each x86-64 level, from the newest, with flags that only CPUs of at least that level have.
_X86_LEVELS = (
    ("x86-64-v4", {"avx512f", "avx512bw"}),
    ("x86-64-v3", {"avx2", "bmi2", "fma"}),
    ("x86-64-v2", {"sse4_2"}),
)


class CuteBackend(Backend):
    """Compiles with `cute.compile`; keeps exported objects in the directory that it is given."""

    name = "cutedsl"
    cache_variables = {"CUTE_DSL_CACHE_DIR": CACHE_VARIABLES["CUTE_DSL_CACHE_DIR"]}  # noqa: RUF012 - never mutated
    modules = ("cutlass", "cutlass.cute")
    typical_compile_s = 1.0

    def missing(self) -> str:
        """Whether the package is there, new enough to compile without a driver, and TVM-FFI with it."""
        absent = missing_package("cutlass", "cutedsl") or missing_package("tvm_ffi", "cutedsl")
        if absent:
            return absent
        version = installed_version("nvidia-cutlass-dsl")
        if tuple(int(part) for part in version.split(".")[:3] if part.isdecimal()) < _FIRST_OFFLINE:
            return f"pip install 'nvidia-cutlass-dsl>=4.5.3' ({version} cannot compile without a GPU driver)"
        return ""

    def owns(self, kernel: object) -> bool:
        """Whether it is a `CuteKernel`."""
        return isinstance(kernel, CuteKernel)

    def toolchain(self) -> Toolchain:
        """Versions, and the CPU level: the host part of an object is built for the machine that compiles it."""
        names = ("nvidia-cutlass-dsl", "apache-tvm-ffi")
        return Toolchain(self.name, (*((name, installed_version(name)) for name in names), ("cpu", cpu_level())))

    def unsupported(self, target: Target) -> str:
        """AMD, and CUDA below 8.0."""
        if target.kind != "cuda":
            return f"target not supported: CuTeDSL has no {target.kind.upper()} target"
        return f"target not supported: CuTeDSL needs cuda:{_MIN_ARCH} or later" if int(target.arch) < _MIN_ARCH else ""

    def device_target(self) -> Target | None:
        """The current CUDA device."""
        return None if self.missing() else internals.device_target()

    def pin(self, target: Target) -> AbstractContextManager[None]:
        """Through the DSL singleton's own setting; the environment variable is read at import only."""
        return internals.pinned(target)

    @contextmanager
    def count_compiles(self) -> Iterator[CompileCount]:
        """At the one method that every real compile passes."""
        count = CompileCount()

        with internals.counting(count.add_compile):
            yield count

    def exchange(self, directory: Path, target: Target) -> AbstractContextManager[None]:
        """See `exchange.py`."""
        return exchange.exchanging(directory, target)

    def explain(self, exc: Exception) -> str:
        """Without the terminal colours that CuTeDSL writes into its messages; an unknown architecture is a bare KeyError."""
        if isinstance(exc, KeyError) and str(exc.args[0]).startswith("sm_"):
            return f"this version of CuTeDSL does not know {exc.args[0]}; a newer nvidia-cutlass-dsl may"
        return _COLOUR.sub("", super().explain(exc))

    def is_warm(self, kernel: CuteKernel, key: Any) -> bool:
        """Whether the kernel's own table holds the callable."""
        return kernel.is_warm(key)

    def watch(self, see: Callable[[Seen], None]) -> AbstractContextManager[None]:
        """At the one method that every real compile passes, asked for by `cute.compile` or by a direct call."""
        return when_imported("cutlass", lambda: watching(see))

    def compiles(self, kernel: CuteKernel, handle: Any) -> bool:
        """Whether it is the kernel's host function."""
        return self.owns(kernel) and function_path(kernel.host) == function_path(handle)

    def begin_use(self, kernels: Iterable[CuteKernel]) -> None:
        """By the kernels' own tables."""
        for kernel in kernels:
            kernel.begin_use()

    def used(self, kernel: CuteKernel, keys: Sequence[Any]) -> list[bool] | None:
        """Which of them were taken from the kernel's table."""
        return kernel.used(keys)


def cpu_level() -> str:
    """The instruction set level of this machine, e.g. `x86-64-v3` or `aarch64`."""
    machine = platform.machine()
    if machine != "x86_64":
        return machine
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return "x86-64"
    present = set(flags.split())
    return next((level for level, needed in _X86_LEVELS if needed <= present), "x86-64")
