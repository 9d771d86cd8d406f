"""`TileLangBackend`: TileLang behind the backend contract."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from jitwarm.backends._tilelang import internals
from jitwarm.backends._tilelang.kernel import TileLangKernel
from jitwarm.backends._tilelang.watching import watching
from jitwarm.backends.packages import installed_version, missing_package
from jitwarm.contract.backend import Backend, CompileCount, Finding, Seen
from jitwarm.contract.target import Target, Toolchain
from jitwarm.environment import CACHE_VARIABLES
from jitwarm.patches import when_imported

_PIP = "pip install 'nvidia-cuda-nvcc>=13' nvidia-cuda-cccl nvidia-cuda-crt nvidia-cuda-runtime nvidia-nvvm"


class TileLangBackend(Backend):
    """Compiles with `JITImpl.compile`, which calls nvcc; keeps artifacts in TileLang's own cache."""

    name = "tilelang"
    cache_variables = {"TILELANG_CACHE_DIR": CACHE_VARIABLES["TILELANG_CACHE_DIR"]}  # noqa: RUF012 - never mutated
    modules = ("tilelang", "tilelang.language")
    typical_compile_s = 5.0

    def missing(self) -> str:
        """Whether the package is there."""
        return missing_package("tilelang", "tilelang")

    def owns(self, kernel: object) -> bool:
        """Whether it is a `TileLangKernel`."""
        return isinstance(kernel, TileLangKernel)

    def toolchain(self) -> Toolchain:
        """TileLang's version, and nvcc's, which TileLang's own key leaves out."""
        return Toolchain(self.name, (("tilelang", installed_version("tilelang")),), (("nvcc", nvcc_version()),))

    def missing_toolchain(self, target: Target) -> str:
        """Nvcc for CUDA, hipcc for AMD."""
        if target.kind == "hip":
            hipcc = shutil.which("hipcc") or Path(os.environ.get("ROCM_PATH", "/opt/rocm"), "bin", "hipcc").exists()
            return "" if hipcc else "toolchain missing: TileLang needs hipcc for AMD; install ROCm or set ROCM_PATH"
        return (
            ""
            if find_nvcc()
            else "toolchain missing: TileLang needs nvcc; install CUDA 13 or pip install nvidia-cuda-nvcc"
        )

    def pin(self, target: Target) -> AbstractContextManager[None]:
        """By TileLang's own variable, which is read at each use."""
        return internals.pinned(target)

    @contextmanager
    def count_compiles(self) -> Iterator[CompileCount]:
        """At the one method that every real compile passes; entries are seen where the cache hands them out."""
        count = CompileCount()

        def see(entry: Path) -> None:
            count.add_files(sorted(path for path in entry.glob("*") if path.is_file()))

        with internals.counting(count.add_compile, see):
            yield count

    def explain(self, exc: Exception) -> str:
        """Nvcc's own words: TileLang puts the whole CUDA source before them and the command after."""
        text = str(exc)
        if "Compilation error:" not in text:
            return super().explain(exc)
        return "nvcc: " + text.rpartition("Compilation error:")[2].partition("\nCommand:")[0].strip()

    def is_warm(self, kernel: TileLangKernel, key: Any) -> bool:
        """By TileLang's own call table."""
        return kernel.is_warm(key)

    def watch(self, see: Callable[[Seen], None]) -> AbstractContextManager[None]:
        """Where every compile passes, and where entries come from disk; lazy, eager and direct calls alike."""
        return when_imported("tilelang", lambda: watching(see))

    def compiles(self, kernel: TileLangKernel, handle: Any) -> bool:
        """Whether it is the kernel's factory."""
        return self.owns(kernel) and kernel.factory is handle

    def specialization(self, kernel: TileLangKernel, key: Any) -> Mapping[str, str]:
        """The factory's arguments."""
        return {name: str(value) for name, value in kernel.factory_args(key).items()}

    def begin_use(self, kernels: Iterable[TileLangKernel]) -> None:
        """By the kernels' own tables; a direct call of the factory is not seen."""
        for kernel in kernels:
            kernel.begin_use()

    def used(self, kernel: TileLangKernel, keys: Sequence[Any]) -> list[bool] | None:
        """Which of them were taken from the kernel's table."""
        return kernel.used(keys)

    def examine(self) -> list[Finding]:
        """Version, and the compilers that a build needs."""
        findings = super().examine()
        if self.missing():
            return findings
        nvcc = find_nvcc()
        if nvcc:
            findings.append(Finding("nvcc", "ok", f"{nvcc} ({nvcc_version()})"))
        else:
            findings.append(
                Finding("nvcc", "error", "not found; TileLang cannot build for CUDA", f"install CUDA 13, or: {_PIP}")
            )
        return findings


def find_nvcc() -> Path | None:
    """Nvcc where TileLang itself would look: CUDA_HOME, CUDA_PATH, PATH, the pip package, /usr/local/cuda."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            candidate = Path(os.environ[variable], "bin", "nvcc")
            return candidate if candidate.exists() else None
    on_path = shutil.which("nvcc")
    if on_path:
        return Path(on_path)
    return next((path for path in (*_pip_nvcc(), Path("/usr/local/cuda/bin/nvcc")) if path.exists()), None)


def _pip_nvcc() -> Iterator[Path]:
    import importlib.util

    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations or () if spec else ():
        yield from Path(place).glob("cu*/bin/nvcc")


@cache
def nvcc_version() -> str:
    """Nvcc's release, e.g. `13.0`; `none` where there is no nvcc."""
    nvcc = find_nvcc()
    if nvcc is None:
        return "none"
    try:
        text = subprocess.run(  # noqa: S603 - the compiler that TileLang itself would run
            [nvcc, "--version"], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    release = re.search(r"release (\d+\.\d+)", text)
    return release[1] if release else "none"
