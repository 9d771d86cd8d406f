"""A process that sees a CUDA device which is only a description: see `described_device.c`.

So a library that asks the device what to compile can be asked itself, on a machine without a GPU. The process is another one than
this: neither a server nor a compile process ever loads the description.
"""

import os
import re
import shutil
import subprocess
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from jitwarm import Target, Unresolved

_SOURCE = "described_device.c"
# Libraries that DeepGEMM's extension is linked with and that a torch without CUDA lacks. The driver's is nowhere without a GPU.
_OF_TORCH = ("libcudart.so.13", "libc10_cuda.so", "libtorch_cuda.so")
_OF_DRIVER = "libcuda.so.1"
_USUAL_HOME = "/usr/local/cuda"
_COMPILE_TIMEOUT_S, _VERSION_TIMEOUT_S = 120, 20


def described(target: Target, n_multiprocessors: int, directory: Path) -> dict[str, str]:
    """Variables for a process in which `target` is there.

    Args:
        target: A CUDA target.
        n_multiprocessors: That the device has.
        directory: Where the description is compiled to; must stay while the process lives.

    Raises:
        Unresolved: There is no nvcc, or it cannot compile for this host.
    """
    library = _compiled(directory)
    for name in (_OF_DRIVER, *(() if _torch_has_cuda() else _OF_TORCH)):
        (directory / name).symlink_to(library)
    major, minor = target.capability
    before = os.environ.get("LD_LIBRARY_PATH")
    return {
        "DESCRIBED_MAJOR": str(major),
        "DESCRIBED_MINOR": str(minor),
        "DESCRIBED_MULTIPROCESSORS": str(n_multiprocessors),
        "DESCRIBED_DEVICE": str(library),
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": f"{directory}:{before}" if before else str(directory),
        "CUDA_VISIBLE_DEVICES": "",
    }


def find_nvcc() -> str:
    """Nvcc where DeepGEMM looks, and in its order, as entries are named by nvcc's version; empty where there is none."""
    if own := os.environ.get("DG_JIT_NVCC_COMPILER") or os.environ.get("DJ_JIT_NVCC_COMPILER"):
        return own
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    found = None if home else shutil.which("nvcc")
    nvcc = Path(found) if found else Path(home or _USUAL_HOME, "bin", "nvcc")
    return str(nvcc) if os.access(nvcc, os.X_OK) else ""


@cache
def nvcc_version() -> str:
    """Of `find_nvcc`, e.g. `13.0.88`; `none` where there is none."""
    nvcc = find_nvcc()
    if not nvcc:
        return "none"
    try:
        said = subprocess.run(  # noqa: S603 - the compiler that DeepGEMM itself would run
            [nvcc, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "none"
    found = re.search(r"\bV([0-9.]+)", said.stdout)
    return found[1] if found else "unknown"


def _compiled(directory: Path) -> Path:
    nvcc = find_nvcc()
    if not nvcc:
        raise Unresolved("toolchain missing: DeepGEMM compiles with nvcc", "install CUDA's compiler, or set CUDA_HOME")
    library = directory / "described_device.so"
    with resources.as_file(resources.files(__package__) / _SOURCE) as source:
        command = [nvcc, "-shared", "-Xcompiler", "-fPIC", "-cudart", "none", str(source), "-o", str(library), "-ldl"]
        try:
            done = subprocess.run(  # noqa: S603 - as above
                command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Unresolved(f"nvcc cannot compile for this host: {exc}", "is a C compiler installed?") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Unresolved(f"nvcc cannot compile for this host: {said[-1]}", "is a C compiler installed?")
    return library


def _torch_has_cuda() -> bool:
    spec = find_spec("torch")
    return bool(spec and spec.origin and (Path(spec.origin).parent / "lib" / "libtorch_cuda.so").exists())
