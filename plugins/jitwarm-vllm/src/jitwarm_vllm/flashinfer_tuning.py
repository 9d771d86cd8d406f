"""FlashInfer's autotune results: found by vLLM's own tuning, kept and agreed upon by jitwarm.

FlashInfer has several kernels ("tactics") for one operation and picks by timing them. vLLM has it do so in a dummy run before
graphs are captured, and keeps a file per rank. Here that same run is the `tune` of a tuned artifact: its result lies in the
store, is the same on every rank, and is put where vLLM's own step looks, which then has nothing left to do.
"""

import contextlib
import importlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jitwarm import NeedsModel, Skipped, Target, TunedArtifact, Unresolved, WarmupConfig

log = logging.getLogger("vllm.jitwarm")
_MIN_ARCH = 90  # below it vLLM does not tune
_WARMUP = "vllm.model_executor.warmup.kernel_warmup"
_CACHE = "vllm.model_executor.warmup.flashinfer_autotune_cache"
_CACHE_DIR = "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"
_METADATA, _GENERATION = "_metadata", "_generation"


def artifacts(config: WarmupConfig, target: Target) -> list[TunedArtifact]:
    """The artifact, where vLLM would tune FlashInfer's operations: with a live model, on SM90 or later, and not switched off."""
    try:
        runner = config.require_runner()
    except NeedsModel:
        return []  # without the model nobody knows whether any operation of FlashInfer's is used
    if target.kind != "cuda" or int(target.arch) < _MIN_ARCH:
        return []
    kernels = getattr(runner.vllm_config, "kernel_config", None)
    if getattr(kernels, "enable_flashinfer_autotune", False) is False or not _has_flashinfer():
        return []
    return [FlashInferTactics(runner)]


class FlashInferTactics(TunedArtifact):
    """The tactics of every FlashInfer operation that the running model uses, as the text of `AutoTuner.save_configs`.

    Args:
        runner: vLLM's model runner.
    """

    name = "flashinfer_autotune"
    is_collective = True  # the dummy run has collectives, and timings are averaged over the ranks
    distributions = ("flashinfer-python", "vllm")

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._written: Path | None = None

    def fingerprint(self, config: WarmupConfig) -> str:
        """The hash of vLLM's configuration, the skipped operations, the pipeline stage, and what FlashInfer itself compares.

        Raises:
            Skipped: vLLM uses FlashInfer's managed store, which keeps results by itself.
            Unresolved: This vLLM tunes in another way.
        """
        cache, warmup = _module(_CACHE), _module(_WARMUP)
        uses_managed_store = getattr(cache, "use_flashinfer_autotune_v2", None)
        if uses_managed_store and uses_managed_store(self._runner):
            raise Skipped("vLLM keeps these results itself, in FlashInfer's managed store")
        if not hasattr(warmup, "flashinfer_autotune") or not hasattr(cache, "flashinfer_autotune_cache_hash"):
            raise Unresolved("this vLLM tunes FlashInfer in a way that is not known here")
        _require_writable_cache()
        skip_ops = getattr(warmup, "_flashinfer_autotune_skip_ops", lambda _: None)(self._runner)
        parts = {
            "vllm_config": cache.flashinfer_autotune_cache_hash(self._runner),
            "skip_ops": sorted(skip_ops or ()),
            "pp_rank": config.pp_rank,
            "environment": _environment(),
        }
        return json.dumps(parts, sort_keys=True)

    def tune(self, config: WarmupConfig) -> bytes:
        """Run vLLM's own tuning. Every rank takes part."""
        del config
        _module(_WARMUP).flashinfer_autotune(self._runner)
        tuner = _autotuner().AutoTuner.get()
        n_failed = sum(len(keys) for keys in tuner.stats.failed_profiling_count.values())
        if n_failed:
            log.info("jitwarm: FlashInfer passed over %d tactics that failed while they were timed", n_failed)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "configs.json"
            tuner.save_configs(str(file))
            return file.read_bytes()

    def merge(self, results: Sequence[bytes]) -> bytes:
        """All entries of all ranks; of an entry that several have, the lowest rank's.

        Some versions of FlashInfer name the rank in an entry, so that one rank's file holds nothing for another.

        Raises:
            ValueError: The ranks tuned in different environments.
        """
        documents = [_document(result) for result in results]
        if len({json.dumps(one.get(_METADATA), sort_keys=True) for one in documents}) > 1:
            raise ValueError("the ranks have different GPUs or libraries")
        merged: dict[str, Any] = {}
        for document in documents:
            for name, value in document.items():
                merged.setdefault(name, value)
        merged.pop(_GENERATION, None)  # a checksum over one rank's entries
        return json.dumps(merged, indent=1, sort_keys=True).encode()

    def apply(self, data: bytes) -> None:
        """Load the tactics into FlashInfer, and put them where vLLM's own step looks for its file.

        Raises:
            ValueError: They are damaged, or of another environment.
        """
        _document(data)
        tuner = _autotuner().AutoTuner.get()
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "configs.json"
            file.write_bytes(data)
            if tuner.load_configs(str(file)) is False:
                raise ValueError("FlashInfer does not take results of another environment")
        try:
            self._write(data)
        except OSError as exc:  # vLLM repeats its dummy run, and times nothing, for all is in memory
            log.warning("jitwarm: vLLM will not find the results of FlashInfer's tuning: %s", exc)

    def revert(self) -> None:
        """Forget all results, as vLLM does where its ranks disagree; vLLM's own step then tunes."""
        _autotuner().AutoTuner.get().clear_cache()
        if self._written:
            self._written.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        file = _rank_file(self._runner)
        file.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(fd, "wb") as out:
                out.write(data)
            Path(temporary).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        self._written = file


def _document(data: bytes) -> dict[str, Any]:
    """The file as `load_configs` reads it.

    Raises:
        ValueError: It is not such a file.
    """
    document = json.loads(data)
    if not isinstance(document, dict) or not isinstance(document.get(_METADATA), dict):
        raise ValueError("this is no file of FlashInfer's autotuner")  # noqa: TRY004 - it is about content
    entries = (value for name, value in document.items() if not name.startswith("_"))
    if not all(isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[0], str) for entry in entries):
        raise ValueError("an entry names no runner and tactic")
    return document


def _rank_file(runner: Any) -> Path:
    """Where vLLM's own step looks for this rank's file; found by what this vLLM has."""
    cache = _module(_CACHE)
    if hasattr(cache, "resolve_rank_flashinfer_autotune_file"):
        return Path(cache.resolve_rank_flashinfer_autotune_file(runner))
    file = Path(cache.resolve_flashinfer_autotune_file(runner))
    rank = _module("vllm.distributed.parallel_state").get_world_group().rank_in_group
    dp_rank = runner.vllm_config.parallel_config.data_parallel_rank
    return file.with_name(f"{file.stem}_dp{dp_rank}_rank{rank}{file.suffix}")


def _require_writable_cache() -> None:
    """Where vLLM cannot write its results, it ends the start: it is given a temporary directory. Our store keeps the results.

    Side effects: may set VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR.
    """
    cache = _module(_CACHE)
    if not hasattr(cache, "flashinfer_autotune_root"):
        return
    root = Path(cache.flashinfer_autotune_root())
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return
    except OSError as exc:
        os.environ[_CACHE_DIR] = tempfile.mkdtemp(prefix="jitwarm-flashinfer-")
        log.warning("jitwarm: %s cannot be written (%s); vLLM is given %s", root, exc, os.environ[_CACHE_DIR])


def _has_flashinfer() -> bool:
    try:
        return bool(_module("vllm.utils.flashinfer").has_flashinfer()) and _autotuner() is not None
    except ImportError:
        return False


def _environment() -> Any:
    """What FlashInfer compares before it takes a file: its version, the GPU's name, CUDA, cuBLAS, cuDNN."""
    return getattr(_autotuner(), "_collect_metadata", dict)()


def _autotuner() -> Any:
    return importlib.import_module("flashinfer.autotuner")


def _module(name: str) -> Any:
    return importlib.import_module(name)
