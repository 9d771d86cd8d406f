"""The Python files of a released vLLM wheel, and its copy of DeepGEMM, in a cache directory outside the repository. The wheel
itself is never installed.

`JITWARM_VLLM_WHEEL` names a wheel file, or a directory into which one was unpacked, to be used instead. `JITWARM_VLLM_DEPS`
names a directory with what vLLM's modules import. Nothing here is imported by jitwarm.
"""

import compileall
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import platformdirs

VERSION = "0.33.0"
_PLATFORM = "manylinux_2_28_x86_64"  # its Python files are those of every platform
_DEEP_GEMM = "vllm/third_party/deep_gemm/"

# What the modules with a dispatcher import, beyond a jitwarm environment with torch, Triton, CuTeDSL and TileLang. All of it is
# installed beside the running environment, never into it; torch is no dependency of any.
_WITH_DEPENDENCIES = (
    "aiohttp",
    "blake3",
    "cachetools",
    "cbor2",
    "fastapi",
    "openai",
    "oss-harmony",
    "partial-json-parser",
    "pillow",
    "prometheus_client",
    "py-cpuinfo",
    "pybase64",
    "pyyaml",
    "pyzmq",
    "regex",
    "requests",
    "sentencepiece",
    "setproctitle",
    "transformers<5.21",
    "uvloop",
)
_ALONE = ("einops", "llguidance", "quack-kernels==0.6.5", "xgrammar==0.2.8")  # these would bring torch along


class UnavailableError(Exception):
    """The wheel, or what its modules import, cannot be had here; the text says why."""


def files(wheel: str | None = None) -> Path:
    """A directory with `vllm/` and its dist-info.

    Args:
        wheel: A wheel file or an unpacked directory; without it JITWARM_VLLM_WHEEL, the cache, or a download.

    Raises:
        UnavailableError: With the last line of what pip said.
    """
    given = wheel or os.environ.get("JITWARM_VLLM_WHEEL")
    if given and Path(given).is_dir():
        return Path(given)
    if given:
        return _unpacked(Path(given), _cache() / Path(given).stem)
    target = _cache() / f"vllm-{VERSION}-with-deep-gemm"
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
        platform = ["--platform", _PLATFORM, "--python-version", "3.11", "--only-binary", ":all:"]
        _pip("download", "--no-deps", *platform, "--dest", scratch, f"vllm=={VERSION}")
        (downloaded,) = Path(scratch).glob("*.whl")
        return _unpacked(downloaded, target)


def deep_gemm() -> Path:
    """The library's directory in `files`: Python, headers and the compiled extension.

    Raises:
        UnavailableError: The wheel cannot be had, or `JITWARM_VLLM_WHEEL` names a directory without it.
    """
    directory = files() / _DEEP_GEMM
    if not list(directory.glob("_C*.so")) or not (directory / "include").is_dir():
        raise UnavailableError(f"no DeepGEMM in {directory}")
    return directory


def dependencies() -> Path:
    """A directory for the end of `sys.path` with what vLLM's modules import.

    Raises:
        UnavailableError: With the last line of what pip said.
    """
    if given := os.environ.get("JITWARM_VLLM_DEPS"):
        if not Path(given).is_dir():
            raise UnavailableError("JITWARM_VLLM_DEPS names no directory")
        return Path(given)
    target = _cache() / f"vllm-{VERSION}-imports-{sys.version_info.major}.{sys.version_info.minor}"
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
            made = Path(scratch) / "made"
            _pip("install", "--target", str(made), *_WITH_DEPENDENCIES)
            _pip("install", "--target", str(made), "--no-deps", *_ALONE)
            _move(made, target)
    return target


def tracer(directory: Path) -> types.ModuleType:
    """vLLM's own tracer, loaded from its one file: that file imports the standard library only."""
    path = directory / "vllm/model_executor/warmup/jit_warmup.py"
    spec = importlib.util.spec_from_file_location("vllm_jit_warmup", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UnavailableError(f"{path.name} is not in the given wheel")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def version(directory: Path) -> str:
    """The version that the dist-info beside `vllm/` names."""
    return next(
        (path.name.split("-")[1].removesuffix(".dist") for path in directory.glob("vllm-*.dist-info")), "unknown"
    )


def _cache() -> Path:
    path = Path(platformdirs.user_cache_dir("jitwarm-tests"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def _unpacked(wheel: Path, target: Path) -> Path:
    if not wheel.is_file():
        raise UnavailableError(f"there is no vLLM wheel {wheel.name}")
    if not target.is_dir():
        with tempfile.TemporaryDirectory(dir=_cache()) as scratch, zipfile.ZipFile(wheel) as archive:
            made = Path(scratch) / "made"
            wanted = [
                name
                for name in archive.namelist()
                if name.endswith(".py") or ".dist-info/" in name or _DEEP_GEMM in name
            ]
            archive.extractall(made, wanted)
            compileall.compile_dir(made, quiet=2)  # many processes import it, and some environments keep no bytecode
            _move(made, target)
    return target


def _move(made: Path, target: Path) -> None:
    """In one step, so that a second process never sees half of it."""
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(made)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"pip {arguments[0]} took too long") from None
    if done.returncode:
        raise UnavailableError(f"pip {arguments[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
