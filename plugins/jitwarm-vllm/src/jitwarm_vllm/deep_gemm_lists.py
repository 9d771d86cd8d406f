"""The kernels that a GEMM uses for each number of tokens, as DeepGEMM itself answers; asked once on a machine.

Asking takes seconds: a process must start, and every number of tokens is asked for. So answers are remembered beside DeepGEMM's
cache, under what they depend on.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from jitwarm import Target
from jitwarm_vllm import deep_gemm_process
from jitwarm_vllm.deep_gemm_layers import Gemm
from jitwarm_vllm.deep_gemm_process import DeepGemmProcess, Reached
from jitwarm_vllm.described_device import nvcc_version

_FORMAT = 1
_MOST_PROCESSES = 4


def listed(target: Target, n_multiprocessors: int, cache: Path, gemms: Sequence[Gemm]) -> list[Reached]:
    """For each GEMM the groups of kernels that its numbers of tokens use.

    Args:
        target: A CUDA target.
        n_multiprocessors: Of the device.
        cache: DeepGEMM's; answers are remembered in its directory `jitwarm`, if it can be written.
        gemms: Of a configuration.

    Raises:
        Unresolved: DeepGEMM cannot be asked here, or refuses a call.
    """
    place = cache / "jitwarm"
    files = {gemm: place / _name(target, n_multiprocessors, gemm) for gemm in gemms}
    answers = {gemm: _read(file) for gemm, file in files.items()}
    if None in answers.values():
        with _alone(place):
            answers = {gemm: _read(file) for gemm, file in files.items()}  # another process may have asked meanwhile
            unknown = [(gemm, files[gemm]) for gemm, answer in answers.items() if answer is None]
            answers.update(_asked(target, n_multiprocessors, unknown))
    return [answers[gemm] or [] for gemm in gemms]


def _asked(
    target: Target, n_multiprocessors: int, unknown: Sequence[tuple[Gemm, Path]]
) -> Iterator[tuple[Gemm, Reached]]:
    """Ask in several processes, which leave as many processors to others as they take."""
    n = max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // 2, len(unknown)))
    shares = [unknown[i::n] for i in range(n if unknown else 0)]
    with ThreadPoolExecutor(n, thread_name_prefix="jitwarm: deep_gemm") as pool:
        for share in pool.map(partial(_ask, target, n_multiprocessors), shares):
            yield from share


def _ask(target: Target, n_multiprocessors: int, unknown: Sequence[tuple[Gemm, Path]]) -> list[tuple[Gemm, Reached]]:
    """Ask one process. Each answer is remembered at once: there may be no time for all."""
    with contextlib.closing(DeepGemmProcess(target, n_multiprocessors, compiles=False)) as process:
        answers = []
        for gemm, file in unknown:
            answers.append((gemm, process.reached(gemm)))
            _write(file, answers[-1][1])
        return answers


def _name(target: Target, n_multiprocessors: int, gemm: Gemm) -> str:
    library = deep_gemm_process.find_library()
    built = [file.stat().st_mtime_ns for file in deep_gemm_process.extensions(library)] if library else []
    parts = (
        _FORMAT,
        str(target),
        n_multiprocessors,
        deep_gemm_process.library_version(),
        nvcc_version(),
        built,
        _options(),
        asdict(gemm),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest() + ".json"


def _options() -> list[tuple[str, str]]:
    """Variables with which DeepGEMM decides or compiles differently."""
    return sorted(
        (name, value) for name, value in os.environ.items() if name.startswith(("DG_", "DJ_")) and "CACHE" not in name
    )


def _read(file: Path) -> Reached | None:
    try:
        return [(int(tokens), tuple(entries)) for tokens, entries in json.loads(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return None


def _write(file: Path, answer: Reached) -> None:
    """Whole or not at all; where nothing can be written, it is asked for again."""
    with contextlib.suppress(OSError):
        handle, scratch = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(answer, stream)
        Path(scratch).replace(file)


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let one process on this machine ask, and the others find its answers; where that cannot be, each asks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((place / "lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
