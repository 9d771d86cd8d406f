"""How long `jitwarm bake` takes: in compile processes, several keys at once, against one key after the other in one process.

    python tests/benchmarks/build.py [RUNS] [DSL ...]

The kernels are those of the example package, with more sizes; each run has a store of its own, and the two ways take turns. Times
are of the whole command, imports included: that is what a person waits for.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

from jitwarm.engine.container import usable_cpus

# Keys that take some twenty seconds one after the other, or more.
SIZES = {
    "triton": ("*rms_norm", {"hidden_sizes": [1024 + 512 * n for n in range(24)]}),
    "cutedsl": ("*silu_and_mul", {"intermediate_sizes": [1024 + 8 * n for n in range(48)]}),
    "tilelang": ("*gemm", {"gemm_shapes": [[2048 + 256 * n, 4096] for n in range(8)]}),
}
WAYS = {"one process": {"JITWARM_ISOLATE": "0"}, "compile processes": {"JITWARM_ISOLATE": "1"}}


def bake(dsl, way):
    """(seconds of the command, number of keys)."""
    glob, values = SIZES[dsl]
    sets = [part for name, value in values.items() for part in ("--set", f"example.{name}={json.dumps(value)}")]
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            "-m",
            "jitwarm",
            "bake",
            "--target",
            "cuda:90",
            "--out",
            out,
            "--kernel",
            glob,
            "--json",
        ]
        start = time.monotonic()
        done = subprocess.run(
            [*command, *sets], env={**os.environ, **WAYS[way]}, capture_output=True, text=True, check=True
        )
        seconds = time.monotonic() - start
    report = json.loads(done.stdout)
    assert report["outcomes"] == {"compiled": report["n_keys"]}, report["outcomes"]
    return seconds, report["n_keys"]


def main():
    n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"{'DSL':10}{'keys':>6}  " + "  ".join(f"{way + ', s':>21} {'least':>7}" for way in WAYS) + "   ratio")
    for dsl in sys.argv[2:] or SIZES:
        times = {way: [] for way in WAYS}
        for _ in range(n_runs):
            for way in WAYS:
                seconds, n_keys = bake(dsl, way)
                times[way].append(seconds)
        serial, ours = (statistics.median(found) for found in times.values())
        cells = "  ".join(f"{statistics.median(found):21.1f} {min(found):7.1f}" for found in times.values())
        print(f"{dsl:10}{n_keys:6}  {cells}  {serial / ours:6.2f}", flush=True)
    load = os.getloadavg()[0]
    print(
        f"{n_runs} runs each, medians; {usable_cpus()} processors, load average {load:.1f} at the end; "
        f"Python {platform.python_version()}, jitwarm {version('jitwarm')}"
    )


if __name__ == "__main__":
    main()
