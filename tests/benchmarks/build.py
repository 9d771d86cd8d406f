"""How long it takes to make keys warm: one after the other here, vLLM's way, in compile processes, and on four ranks at once.

    python tests/benchmarks/build.py [RUNS] [DSL ...]

Each measurement is a process of its own with a store of its own, and the ways take turns. The time begins when the compilers are
imported (here, and in the mothers of the compile processes) and the keys are listed; the imports are a column of their own.
vLLM's way is its asynchronous compile mode over four threads for Triton; for the rest it is one key after the other. A rank is
a process; four of them meet when all have imported, and the time is that of the slowest.
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
from pathlib import Path

from jitwarm.engine.container import usable_cpus

HERE = Path(__file__).parent
DSLS = ("triton", "cutedsl", "tilelang")
N_RANKS = 4
QUIET_S, PATIENCE_S = 1.0, 120.0


def install(site):
    """The plugin with the Triton kernel, for the processes that have `site` on their path."""
    info = site / "bench-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[jitwarm.kernels]\nbench = bench\n")


def start(site, dsl, way, workers, *more):
    path = os.pathsep.join([str(site), str(HERE / "plugin"), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, str(HERE / "one_build.py"), dsl, way, str(workers), *map(str, more)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def answer(process):
    out, _ = process.communicate()
    assert process.returncode == 0, process.args
    return json.loads(out.splitlines()[-1])


def alone(site, dsl, way):
    await_quiet()
    return answer(start(site, dsl, way, usable_cpus()))


def ranks(site, dsl):
    """Several ranks over one store: the slowest one's time."""
    await_quiet()
    with tempfile.TemporaryDirectory() as barrier:
        workers = max(1, usable_cpus() // N_RANKS)
        started = [start(site, dsl, "processes", workers, barrier, N_RANKS) for _ in range(N_RANKS)]
        found = [answer(process) for process in started]
    slowest = max(found, key=lambda one: one["ended"])
    return {**slowest, "seconds": slowest["ended"] - min(one["began"] for one in found)}


def await_quiet():
    """Wait until nobody else uses the processors; without that a measurement means little."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        before = busy_s()
        time.sleep(QUIET_S)
        if busy_s() - before < 0.1 * QUIET_S:
            return
    sys.exit("the machine is busy with something else: nothing measured")


def busy_s():
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


WAYS = {
    "one by one": lambda site, dsl: alone(site, dsl, "one process"),
    "vLLM's way": lambda site, dsl: alone(site, dsl, "threads"),
    "compile processes": lambda site, dsl: alone(site, dsl, "processes"),
    f"{N_RANKS} ranks": ranks,
}


def main():
    n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(
        "| DSL | keys | way | median, s | least, s | x one by one | imports, s | this process grew by, MB | a child's peak, MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        install(Path(scratch, "site"))
        for dsl in sys.argv[2:] or DSLS:
            ways = {way: measure for way, measure in WAYS.items() if dsl == "triton" or way != "vLLM's way"}
            found = {way: [] for way in ways}
            for _ in range(n_runs):
                for way, measure in ways.items():
                    found[way].append(measure(Path(scratch, "site"), dsl))
            show(dsl, found)
    print(
        f"\n{time.strftime('%Y-%m-%d')}, {n_runs} runs each in turn, {usable_cpus()} processors, "
        f"Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("jitwarm", "triton", "nvidia-cutlass-dsl", "tilelang"))
    )


def show(dsl, found):
    serial = statistics.median(one["seconds"] for one in found["one by one"])
    for way, runs in found.items():
        seconds = [one["seconds"] for one in runs]
        median = statistics.median(seconds)
        print(
            f"| {dsl} | {runs[0]['n_keys']} | {way} | {median:.1f} | {min(seconds):.1f} | {serial / median:.2f} "
            f"| {statistics.median(one['imported_s'] for one in runs):.1f} "
            f"| {max(one['engine_bytes'] for one in runs) >> 20} | {max(one['child_bytes'] for one in runs) >> 20} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
