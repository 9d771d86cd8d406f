"""The process in which DeepGEMM runs over a described device: `python -m jitwarm_vllm.deep_gemm_host LIBRARY DEVICE DIRECTORY`.

`LIBRARY` is the directory of the package `deep_gemm`, `DEVICE` the compiled `described_device.c`, which is also preloaded, and
`DIRECTORY` what is removed at the end. Reads a request per line, JSON, and answers with a line each:

    {"call": "linear", "shape": {"n": 4096, "k": 7168, "major": 9}, "tokens": [1, 8192]}
    {"reached": [[1, ["sm90_fp8_gemm_1d2d.2d3d..."]], [17, ["sm90_fp8_gemm_1d2d.c95b..."]], ...]}

`reached` has for each group of kernels the fewest tokens that use it, and the names of their entries in DeepGEMM's cache. Whether
they are compiled is decided by whoever starts this: see `deep_gemm_process`.
"""

import ctypes
import importlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

_MOST_LAUNCHES = 64


def main(library: str, device: str, directory: str) -> None:
    """Answer until there are no more requests."""
    with _answers() as answers:
        try:
            deep_gemm, calls = _imported(Path(library))
        except Exception as exc:  # noqa: BLE001 - whatever it is, whoever asks has to know
            _say(answers, {"error": f"{type(exc).__name__}: {exc}"})
            return
        _say(answers, {"version": str(getattr(deep_gemm, "__version__", ""))})
        launches = _launches(device)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                call = calls.CALLS[request["call"]]
                used = partial(_used, partial(call, deep_gemm, request["shape"]), launches)
                _say(answers, {"reached": _reached(used, *request["tokens"])})
            except Exception as exc:  # noqa: BLE001 - as above
                _say(answers, {"error": str(exc).strip() or type(exc).__name__})
    shutil.rmtree(directory, ignore_errors=True)  # nobody asks any more, and may be no longer there to do it


def _reached(used: Callable[[int], tuple[str, ...]], fewest: int, most: int) -> list[Any]:
    reached: dict[tuple[str, ...], int] = {}
    for tokens in range(fewest, most + 1):
        reached.setdefault(used(tokens), tokens)
    return [[tokens, list(entries)] for entries, tokens in reached.items()]


def _used(call: Callable[[int], None], launches: Callable[[], Iterator[str]], tokens: int) -> tuple[str, ...]:
    """The entries of the kernels that one call launches, each once."""
    call(tokens)
    return tuple(dict.fromkeys(Path(file).parent.name for file in launches()))


def _imported(library: Path) -> tuple[Any, Any]:
    """The library, by its place: beside vLLM's own copy lie packages that are not to be found. And the calls of it."""
    spec = importlib.util.spec_from_file_location(
        library.name, library / "__init__.py", submodule_search_locations=[str(library)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{library} is no package")
    deep_gemm = sys.modules[library.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(deep_gemm)
    return deep_gemm, importlib.import_module("jitwarm_vllm.deep_gemm_calls")


def _launches(device: str) -> Callable[[], Iterator[str]]:
    ask = ctypes.CDLL(device).described_launches
    files = (ctypes.c_char_p * _MOST_LAUNCHES)()
    return lambda: (os.fsdecode(files[i] or b"") for i in range(ask(files, _MOST_LAUNCHES)))


def _answers() -> TextIO:
    """Stdout as it was; what compilers and libraries print goes where errors go."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
