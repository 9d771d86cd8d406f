"""DeepGEMM's kernels of some layers: those that serving uses, and those that vLLM's own warm-up compiles by launching.

    python tests/benchmarks/deep_gemm_kernels.py [--build]

For a released vLLM (see `vllm_wheel.py`) and its DeepGEMM, over a described device: there is no GPU, nothing is launched. With
`--build` nvcc compiles each kernel that serving uses, one after the other. "missed" are kernels that serving uses and that vLLM's
warm-up does not compile: the first request that needs one waits for nvcc.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import vllm_wheel

from jitwarm import Target
from jitwarm_vllm.deep_gemm_layers import Gemm
from jitwarm_vllm.deep_gemm_process import DeepGemmProcess, environment

MULTIPROCESSORS = {"cuda:90": 132, "cuda:100": 148}
MOST_TOKENS = (1, 8192)
PLUGIN_TESTS = Path(__file__).parents[2] / "plugins" / "jitwarm-vllm" / "tests"
# Qwen3-30B-A3B in FP8 on one rank.
LAYERS = {
    "query, key, value": [Gemm("linear", 5120, 2048, 1, 1, is_first=False, tokens=MOST_TOKENS)],
    "attention output": [Gemm("linear", 2048, 4096, 1, 1, is_first=False, tokens=MOST_TOKENS)],
    "128 experts": [
        Gemm("experts", 1536, 2048, 128, 8, is_first=True, tokens=MOST_TOKENS),
        Gemm("experts", 2048, 768, 128, 8, is_first=False, tokens=MOST_TOKENS),
    ],
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="also compile, and print seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / "deep_gemm").symlink_to(vllm_wheel.deep_gemm())
        sys.path.insert(0, path)  # as a DeepGEMM that is installed beside vLLM
        _say(f"vLLM {vllm_wheel.VERSION}, {MOST_TOKENS[1]} tokens at most; kernels, and launches of vLLM's warm-up")
        names = ("target", "layer", "used", "launches", "compiled", "missed", "not used", "seconds")
        _say("{:9} {:18} {:>5} {:>9} {:>9} {:>7} {:>9} {:>8}".format(*names))
        for target in MULTIPROCESSORS:
            _print(target, builds=options.build)


def _print(target: str, *, builds: bool) -> None:
    warmed = _warmed(target)
    for (name, gemms), vllms in zip(LAYERS.items(), warmed, strict=True):
        used, seconds = _used(target, gemms, builds=builds)
        theirs = set(vllms["used"])
        counts = f"{len(used):5} {vllms['n_launches']:9} {len(theirs):9} {len(used - theirs):7} {len(theirs - used):9}"
        _say(f"{target:9} {name:18} {counts} {f'{seconds:8.1f}' if builds else '       -'}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _used(target: str, gemms: list[Gemm], *, builds: bool) -> tuple[set[str], float]:
    """Entries that serving uses, and how long it takes to list them, or to build them."""
    with contextlib.closing(DeepGemmProcess(Target.parse(target), MULTIPROCESSORS[target], compiles=builds)) as process:
        started = time.perf_counter()
        used = {entry for gemm in gemms for _, entries in process.reached(gemm) for entry in entries}
        return used, time.perf_counter() - started


def _warmed(target: str) -> list[dict]:
    with tempfile.TemporaryDirectory() as path:
        variables = environment(Target.parse(target), MULTIPROCESSORS[target], Path(path), compiles=False)
        cases = json.dumps([asdict(gemms[0]) for gemms in LAYERS.values()])
        program = Path(__file__).with_name("deep_gemm_warmup.py")
        done = subprocess.run(
            [sys.executable, program, target, cases, str(vllm_wheel.files()), str(vllm_wheel.dependencies())],
            env={**os.environ, **variables, "VLLM_TARGET_DEVICE": "cpu", "PYTHONPATH": str(PLUGIN_TESTS)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
