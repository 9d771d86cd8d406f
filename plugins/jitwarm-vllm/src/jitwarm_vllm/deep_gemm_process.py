"""DeepGEMM in a process of its own, over a described device: which kernels a call uses, and building them.

A process that lists compiles nothing: in place of nvcc it has a program that keeps the source and leaves the rest. One that
builds calls nvcc. Each takes seconds to start (torch), so one that builds stays for the next key, and ends with who asked.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

from jitwarm import JitwarmError, Target, Unresolved
from jitwarm_vllm.deep_gemm_layers import Gemm
from jitwarm_vllm.described_device import described, find_nvcc

# For each group of kernels the fewest tokens that use it, and the names of their entries in DeepGEMM's cache.
Reached = list[tuple[int, tuple[str, ...]]]

_RECORDER = """#!/bin/sh
# In place of nvcc: what would be compiled is kept, and nothing is.
[ "$1" = --version ] && exec "$DESCRIBED_NVCC" --version
while [ $# -gt 0 ]; do [ "$1" = --output-file ] && echo >"$2"; shift; done
"""
_LAST_WORDS = 2000
_LISTING_TIMEOUT_S = 300.0
_CACHE = "deep_gemm"
_builders: dict[tuple[str, int], "DeepGemmProcess"] = {}


def find_library() -> Path | None:
    """The package that vLLM would use: an installed `deep_gemm`, else vLLM's own copy. Imports neither."""
    for name, below in (("deep_gemm", ""), ("vllm", "third_party/deep_gemm")):
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
            place = Path(spec.origin).parent / below if spec and spec.origin else None
            if place and (place / "include").is_dir():
                return place
    return None


@cache
def library_version() -> str:
    """Of the distribution that it came with, and the size of its extension, which tells builds of one version apart."""
    library = find_library()
    if library is None:
        return "none"
    name = "vllm" if library.parent.name == "third_party" else "deep_gemm"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return f"{version}-{sum(extension.stat().st_size for extension in extensions(library))}"


def extensions(library: Path) -> list[Path]:
    """The compiled parts of the library."""
    return sorted(library.glob("_C*.so"))


def building(target: Target, n_multiprocessors: int) -> "DeepGemmProcess":
    """The process of this one that builds for a device; started if need be."""
    key = (str(target), n_multiprocessors)
    known = _builders.get(key)
    if known is None or not known.is_alive():
        _builders[key] = known = DeepGemmProcess(target, n_multiprocessors, compiles=True)
    return known


def environment(target: Target, n_multiprocessors: int, directory: Path, *, compiles: bool) -> dict[str, str]:
    """Variables of a process in which DeepGEMM is asked.

    Args:
        target: What the device is.
        n_multiprocessors: Of the device.
        directory: For what the process needs, and DeepGEMM's cache.
        compiles: Whether its compiler is nvcc; else what it would compile is kept, and nothing is compiled.

    Raises:
        Unresolved: There is no nvcc, or it cannot compile for this host.
    """
    variables = {**described(target, n_multiprocessors, directory), "DG_JIT_CACHE_DIR": str(directory / _CACHE)}
    if compiles:
        return variables
    recorder = directory / "recorder"
    recorder.write_text(_RECORDER)
    recorder.chmod(0o700)
    return {**variables, "DESCRIBED_NVCC": find_nvcc(), "DG_JIT_NVCC_COMPILER": str(recorder)}


def request(gemm: Gemm, target: Target) -> dict[str, Any]:
    """A line for `deep_gemm_host`: for which kernels to ask."""
    shape = {"n": gemm.n, "k": gemm.k, "groups": gemm.groups, "top_k": gemm.top_k, "is_first": gemm.is_first}
    return {"call": gemm.call, "shape": {**shape, "major": target.capability[0]}, "tokens": gemm.tokens}


class DeepGemmProcess:
    """One process; asked from one thread at a time.

    Args:
        target: What the device is.
        n_multiprocessors: Of the device.
        compiles: Whether what is asked for is built, into `cache`.

    Attributes:
        cache: Where its entries are; it ends with the process.

    Raises:
        Unresolved: There is no DeepGEMM here, none that can be asked in this way, or no nvcc.
    """

    def __init__(self, target: Target, n_multiprocessors: int, *, compiles: bool) -> None:
        library = find_library()
        if library is None:
            raise Unresolved("DeepGEMM is not installed", "vLLM's CUDA wheels bring it")
        self._target, self._compiles = target, compiles
        self._process: subprocess.Popen[str] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="jitwarm-deep-gemm-"))
        self.cache = self._directory / _CACHE / "cache"
        try:
            variables = environment(target, n_multiprocessors, self._directory, compiles=compiles)
            self._process = self._started(library, variables)
            self._answer(self._process)
        except BaseException:
            self.close()
            raise

    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process is not None and self._process.poll() is None

    def reached(self, gemm: Gemm) -> Reached:
        """The kernels that a GEMM uses for each of its numbers of tokens; they are built where this process builds.

        Raises:
            Unresolved: DeepGEMM refuses the call.
            JitwarmError: Nvcc failed, or the process has ended.
        """
        if self._process is None:
            raise JitwarmError("the process of DeepGEMM was closed")
        try:
            print(json.dumps(request(gemm, self._target)), file=self._process.stdin, flush=True)
        except OSError as exc:
            raise self._end() from exc
        return [(tokens, tuple(entries)) for tokens, entries in self._answer(self._process)["reached"]]

    def close(self) -> None:
        """End it, and remove its entries."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._printed.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _started(self, library: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
        arguments = (library, variables["DESCRIBED_DEVICE"], self._directory)
        self._printed = (self._directory / "printed").open("w+b")
        return subprocess.Popen(  # noqa: S603 - in this process's group, so that what ends this one ends it
            [sys.executable, "-P", "-m", "jitwarm_vllm.deep_gemm_host", *map(str, arguments)],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            text=True,
        )

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        # Who waits for a build has a deadline of its own, and ends this process with its group.
        timer = threading.Timer(_LISTING_TIMEOUT_S, process.kill)
        if not self._compiles:
            timer.start()
        line = process.stdout.readline() if process.stdout else ""
        timer.cancel()
        if not line:
            raise self._end()
        answer: dict[str, Any] = json.loads(line)
        if error := answer.get("error"):
            first, *rest = str(error).partition("\nC++ trace")[0].splitlines()
            details = "\n".join(line for line in rest if not line.startswith("cd ")) or self._last_words()
            raise (JitwarmError if self._compiles else Unresolved)(f"DeepGEMM: {first}", details)
        return answer

    def _end(self) -> JitwarmError:
        """It has ended by itself: clear up, so that nobody asks it again. Returns what to raise."""
        words = self._last_words()
        self.close()
        return JitwarmError("the process of DeepGEMM has ended", words)

    def _last_words(self) -> str:
        self._printed.seek(0)
        return self._printed.read().decode(errors="replace").strip()[-_LAST_WORDS:]
