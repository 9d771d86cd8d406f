"""DeepGEMM's FP8 GEMMs, of linear layers and of experts: which kernels there will be, and building them, without a GPU.

DeepGEMM decides in C++, by the shape and by the device, which kernel it generates for a number of tokens. That decision is not
repeated here: the library itself is asked, for every number of tokens, in a process in which the device is a description
(`deep_gemm_process`), and there it also builds what it generated, with its own call of nvcc. What it builds is an entry of its
cache, under a name that says neither where the cache lies nor the library; it is kept in the store, and put where DeepGEMM looks.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from jitwarm import (
    Backend,
    Finding,
    JitKernel,
    JitwarmError,
    Outcome,
    Target,
    Toolchain,
    Unresolved,
    WarmupConfig,
    artifact_dir,
    current_target,
)
from jitwarm_vllm import deep_gemm_process, models
from jitwarm_vllm.deep_gemm_layers import Gemm, experts_gemms, linear_gemms
from jitwarm_vllm.deep_gemm_lists import listed
from jitwarm_vllm.described_device import find_nvcc, nvcc_version

BACKEND = "deep_gemm"
_CACHE = "DG_JIT_CACHE_DIR"
# As NVIDIA's data sheets have them: H100 SXM and H200, B200, B300; then those of the same architectures with fewer, by a part of
# their names. Others are said by a setting.
_MULTIPROCESSORS = {"90": 132, "100": 148, "103": 148}
_FEWER_MULTIPROCESSORS = {"H100 PCIe": 114, "H800 PCIe": 114, "H20": 78}
_FIRST_PACKED_MAJOR = 10  # scales are exponents, four in an int32
# The files of an entry: source, code, a note, and the mark that the others are whole.
_FILES = ("kernel.cu", "kernel.cubin", "meta.json", ".committed")


class DeepGemmBackend(Backend):
    """DeepGEMM's just-in-time compiler: it generates C++, and calls nvcc."""

    name = BACKEND
    cache_variables: ClassVar[dict[str, str]] = {_CACHE: "deep_gemm"}
    typical_compile_s = 8.0

    def missing(self) -> str:
        """Whether vLLM would find the library."""
        return "" if deep_gemm_process.find_library() else "not installed: vLLM's CUDA wheels bring DeepGEMM"

    def owns(self, kernel: object) -> bool:
        """Whether it is of the class below."""
        return isinstance(kernel, DeepGemm)

    def toolchain(self) -> Toolchain:
        """The library's version, and nvcc's: its names of entries depend on both."""
        versions = (("deep_gemm", deep_gemm_process.library_version()), ("nvcc", nvcc_version()))
        return Toolchain(self.name, versions)

    def unsupported(self, target: Target) -> str:
        """Which targets are declared: Hopper, and Blackwell but for its small family."""
        if target.kind == "cuda" and target.arch in _MULTIPROCESSORS:
            return ""
        return (
            f"target not supported: DeepGEMM is declared for cuda:{', cuda:'.join(_MULTIPROCESSORS)}, not for {target}"
        )

    def examine(self) -> list[Finding]:
        """Where it is not installed, nothing is wrong: vLLM uses it if it is there."""
        return [Finding(self.name, "ok", missing)] if (missing := self.missing()) else super().examine()

    def missing_toolchain(self, target: Target) -> str:
        """Nvcc."""
        del target
        return "" if find_nvcc() else "toolchain missing: DeepGEMM compiles with nvcc; install it, or set CUDA_HOME"


class DeepGemm(JitKernel, trace=False):
    """`fp8_gemm_nt` for linear layers or `m_grouped_fp8_gemm_nt_contiguous` for experts, and what the weights' scales need.

    Args:
        name: The kernel's.
        gemms: Lists those of a configuration.
    """

    backend = BACKEND

    def __init__(self, name: str, gemms: Callable[[WarmupConfig], list[Gemm]]) -> None:
        self.name = name
        self._gemms = gemms

    @dataclass(frozen=True)
    class CompileKey:
        """A GEMM (see `deep_gemm_layers.Gemm`), the fewest tokens that use these kernels, and their entries in the cache."""

        call: str
        n: int
        k: int
        groups: int
        top_k: int
        is_first: bool
        n_multiprocessors: int
        tokens: int
        entries: tuple[str, ...]

    def dispatch(self, *, gemm: Gemm, tokens: int, n_multiprocessors: int) -> CompileKey:
        """What DeepGEMM uses for one of the GEMM's numbers of tokens. The library is asked, which takes seconds."""
        one = replace(gemm, tokens=(tokens, tokens))
        reached, [(_, entries)] = listed(current_target(), n_multiprocessors, _cache(), [gemm, one])
        fewest = next(n for n, used in reached if used == entries)
        return _key(gemm, n_multiprocessors, fewest, entries)

    def get_warmup_keys(self, config: WarmupConfig) -> list[CompileKey]:
        """For each layer a key for each group of kernels that some number of tokens uses."""
        found = self._gemms(config) if _is_used() else []
        if not found:
            return []
        _require_declared()
        n = n_multiprocessors(config)
        lists = listed(current_target(), n, _cache(), found)
        return [
            _key(gemm, n, fewest, entries)
            for gemm, reached in zip(found, lists, strict=True)
            for fewest, entries in reached
            if entries
        ]

    def compile(self, key: CompileKey) -> Outcome:
        """Build the key's entries into the store where they are nowhere, and put them where DeepGEMM looks."""
        kept, cache, outcome = artifact_dir(), _cache() / "cache", Outcome.LOADED
        if not all(_is_whole(_kept(kept, entry)) for entry in key.entries):
            built = cache  # by DeepGEMM itself, in an earlier run
            if not all(_is_whole(_in_cache(cache, entry)) for entry in key.entries):
                built, outcome = _built(key), Outcome.COMPILED
            for entry in key.entries:
                for source, file in zip(_in_cache(built, entry), _kept(kept, entry), strict=True):
                    shutil.copyfile(source, file)
        for entry in key.entries:
            _publish(_kept(kept, entry), cache / entry)
        return outcome


def kernels() -> list[JitKernel]:
    """One each, so that a reason which keeps the keys of linear layers from being listed is none for experts."""
    return [DeepGemm("deep_gemm_linear", linear_gemms), DeepGemm("deep_gemm_experts", experts_gemms)]


def n_multiprocessors(config: WarmupConfig) -> int:
    """Of the device, for whose number kernels are made: the setting, else this process's GPU, else by its name or architecture.

    Raises:
        ModelConfigError: The settings are wrong.
    """
    chosen = models.settings(config)
    if chosen.n_multiprocessors:
        return chosen.n_multiprocessors
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return int(cuda.get_device_properties(cuda.current_device()).multi_processor_count)
    for name, n in _FEWER_MULTIPROCESSORS.items():
        if re.search(rf"\b{name}\b", chosen.device_name):
            return n
    return _MULTIPROCESSORS[current_target().arch]


def _is_used() -> bool:
    """Whether vLLM would use DeepGEMM at all."""
    target = current_target()
    if target.kind != "cuda" or target.arch not in _MULTIPROCESSORS or not deep_gemm_process.find_library():
        return False
    from vllm import envs

    return bool(envs.VLLM_USE_DEEP_GEMM)


def _require_declared() -> None:
    """Refuse a use of DeepGEMM that is not declared.

    Raises:
        Unresolved: Always then.
    """
    from vllm import envs

    if current_target().capability[0] >= _FIRST_PACKED_MAJOR and not envs.VLLM_USE_DEEP_GEMM_E8M0:
        raise Unresolved("VLLM_USE_DEEP_GEMM_E8M0=0 is not declared for Blackwell", "unset it, or let DeepGEMM compile")


def _key(gemm: Gemm, n_multiprocessors: int, tokens: int, entries: tuple[str, ...]) -> DeepGemm.CompileKey:
    return DeepGemm.CompileKey(
        gemm.call, gemm.n, gemm.k, gemm.groups, gemm.top_k, gemm.is_first, n_multiprocessors, tokens, entries
    )


def _cache() -> Path:
    """DeepGEMM's cache in this process: what its variable says, else what vLLM would set. It may name further ones to read."""
    if given := os.environ.get(_CACHE):
        return Path(given.partition(os.pathsep)[0])
    from vllm import envs

    return Path(envs.VLLM_CACHE_ROOT) / "deep_gemm"


def _built(key: DeepGemm.CompileKey) -> Path:
    """Where the key's entries are after DeepGEMM has built them.

    Raises:
        JitwarmError: Nvcc failed, or DeepGEMM is not the one that listed the key.
    """
    process = deep_gemm_process.building(current_target(), key.n_multiprocessors)
    gemm = Gemm(key.call, key.n, key.k, key.groups, key.top_k, key.is_first, (key.tokens, key.tokens))
    [(_, entries)] = process.reached(gemm)
    if entries != key.entries:
        raise JitwarmError(
            f"DeepGEMM built {', '.join(entries)} instead of {', '.join(key.entries)}",
            "was DeepGEMM or nvcc replaced since the keys were listed? Start again",
        )
    return process.cache


def _in_cache(cache: Path, entry: str) -> list[Path]:
    return [cache / entry / name for name in _FILES]


def _kept(directory: Path, entry: str) -> list[Path]:
    """The files of an entry in the store, which keeps files and no directories."""
    return [directory / f"{entry}.{name.lstrip('.')}" for name in _FILES]


def _is_whole(files: list[Path]) -> bool:
    return all(file.is_file() for file in files)


def _is_same(files: list[Path], others: list[Path]) -> bool:
    """As far as sizes tell; what DeepGEMM notes of the compile differs from one to the next."""
    try:
        return all(
            file.stat().st_size == other.stat().st_size for file, other in list(zip(files, others, strict=True))[:2]
        )
    except OSError:
        return False


def _publish(files: list[Path], place: Path) -> None:
    """Put an entry into DeepGEMM's cache, whole or not at all: one that lacks a file is a fatal error there."""
    placed = [place / name for name in _FILES]
    if _is_whole(placed) and _is_same(files, placed):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".jitwarm-", dir=place.parent))
    try:
        for file, name in zip(files, _FILES, strict=True):
            shutil.copyfile(file, scratch / name)
        shutil.rmtree(place, ignore_errors=True)
        try:
            scratch.rename(place)
        except OSError:
            if not _is_whole(placed):  # else another process was first, and its entry is the same
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
