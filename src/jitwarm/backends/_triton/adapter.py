"""`TritonBackend`: Triton behind the backend contract."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from jitwarm.backends._triton import internals, watching
from jitwarm.backends._triton.kernel import TritonKernel
from jitwarm.backends._triton.replay import LearnedFunctions
from jitwarm.backends.packages import installed_version, missing_package
from jitwarm.contract.backend import Backend, CompileCount, Finding, Seen
from jitwarm.contract.target import Target, Toolchain
from jitwarm.environment import CACHE_VARIABLES
from jitwarm.errors import UnsupportedTargetError
from jitwarm.patches import when_imported


class TritonBackend(Backend):
    """Compiles with `JITFunction.warmup`, counts with `knobs.compilation.listener`, keeps artifacts in Triton's own cache."""

    name = "triton"
    cache_variables = {"TRITON_CACHE_DIR": CACHE_VARIABLES["TRITON_CACHE_DIR"]}  # noqa: RUF012 - never mutated
    modules = ("jitwarm.backends._triton.preload",)
    typical_compile_s = 0.5

    def missing(self) -> str:
        """Whether the package is there."""
        return missing_package("triton", "triton")

    def owns(self, kernel: object) -> bool:
        """Whether it is a `TritonKernel`, or stands for functions without one."""
        return isinstance(kernel, TritonKernel | LearnedFunctions)

    def toolchain(self) -> Toolchain:
        """Triton brings its own assembler, so its version says it all; a replaced ptxas is named."""
        replaced = tuple((name, os.environ[name]) for name in ("TRITON_PTXAS_PATH",) if os.environ.get(name))
        return Toolchain(self.name, (("triton", installed_version("triton")), *replaced))

    def device_target(self) -> Target | None:
        """What Triton's driver says of the current device."""
        return internals.current_target() if not self.missing() and internals.has_real_driver() else None

    @contextmanager
    def pin(self, target: Target) -> Iterator[None]:
        """On a machine without a GPU install the stand-in driver; with one, only its own target can be compiled for."""
        if not internals.has_real_driver():
            internals.install_offline_driver(target)
        elif (device := internals.current_target()) != target:
            raise UnsupportedTargetError(
                f"this process's GPU is {device}; Triton compiles for it alone here, not for {target}",
                "use `jitwarm bake --target`, which hides the GPU from itself",
            )
        yield

    @contextmanager
    def count_compiles(self) -> Iterator[CompileCount]:
        """A listener tells a compile from a disk hit and names the files of both."""
        count = CompileCount()

        def listener(*, metadata_group: dict[str, str], cache_hit: bool, **_: Any) -> None:
            count.n_compiled += not cache_hit
            # Not the group file: it holds absolute paths, and so differs from place to place.
            count.add_files([Path(path) for path in metadata_group.values()])

        with internals.listening(listener):
            yield count

    def is_warm(self, kernel: TritonKernel, key: Any) -> bool:
        """By Triton's in-process key; on a device the binary must be loaded."""
        return kernel.is_warm(key)

    def watch(self, see: Callable[[Seen], None]) -> AbstractContextManager[None]:
        """See `watching.py`."""
        return when_imported("triton", lambda: watching.watching(see))

    def compiles(self, kernel: TritonKernel, handle: Any) -> bool:
        """Whether it is the jit function below the kernel's wrappers."""
        return self.owns(kernel) and internals.jit_function(handle) in kernel.jit_functions()

    def specialization(self, kernel: TritonKernel, key: Any) -> Mapping[str, str]:
        """As Triton's own binder gives it."""
        return kernel.specialization(key)

    def begin_use(self, kernels: Iterable[TritonKernel]) -> None:
        """By Triton's memo of launches, emptied now."""
        for function in (function for kernel in kernels for function in kernel.jit_functions()):
            internals.forget_uses(function)

    def used(self, kernel: TritonKernel, keys: Sequence[Any]) -> list[bool] | None:
        """Which of them Triton's memo of launches holds again."""
        return kernel.used(keys)

    def relocate(self, root: Path) -> None:
        """Rewrite the absolute paths in Triton's group files; while the old place exists, Triton would read that one."""
        for group in (root / "triton").glob("*/__grp__*.json"):
            temporary = group.with_name(f".{group.name}.{os.getpid()}")
            temporary.write_bytes(self.relocated(group, group.read_bytes()))
            temporary.replace(group)

    def relocated(self, file: Path, content: bytes) -> bytes:
        """A group file names its neighbours by absolute path."""
        if not (file.name.startswith("__grp__") and file.suffix == ".json"):
            return content
        record = json.loads(content)
        record["child_paths"] = {name: str(file.parent / name) for name in record["child_paths"]}
        return json.dumps(record).encode()

    def examine(self) -> list[Finding]:
        """Version, and the C compiler that Triton before 3.8 needs at the first launch of each signature."""
        findings = super().examine()
        if not self.missing() and shutil.which("cc") is None and shutil.which("gcc") is None:
            version = tuple(int(part) for part in installed_version("triton").split(".")[:2])
            if version < (3, 8):
                text = (
                    "no C compiler; Triton before 3.8 builds a launcher with it at the first launch of each signature"
                )
                findings.append(Finding("triton launcher", "error", text, "install gcc in the serving image"))
        return findings
