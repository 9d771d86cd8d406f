"""One way to make the keys of one DSL warm, timed in a process of its own; started by `build.py`.

    python tests/benchmarks/one_build.py DSL WAY WORKERS [BARRIER N_RANKS]

The time begins when every compiler is imported and every key is listed: here, and in the mothers where there are any. Prints
JSON.
"""

import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

# Keys that take twenty seconds and more, one after the other.
KEYS = {
    "triton": ("bench:matmul", {"bench": {"n": 36}}),
    "cutedsl": ("example:silu_and_mul", {"example": {"intermediate_sizes": [1024 + 8 * n for n in range(64)]}}),
    "tilelang": ("example:gemm", {"example": {"gemm_shapes": [[2048 + 256 * n, 4096] for n in range(8)]}}),
}
VLLM_THREADS = 4  # VLLM_TRITON_JIT_WARMUP_NUM_THREADS


def main(dsl, way, workers, barrier="", n_ranks="1"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from jitwarm import Target, WarmupConfig
    from jitwarm.session import Session
    from jitwarm.settings import Asked, Settings

    kernel, extra = KEYS[dsl]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(barrier) / "store" if barrier else Path(scratch, "store")
        settings = Settings(
            isolate=way == "processes", workers=int(workers), run_id="run", plugins=("bench", "example")
        )
        peaks = {}
        session = Session(
            Asked(WarmupConfig(extra=extra), settings), Target("cuda", "90"), root=root, listeners=[watch(peaks)]
        )
        start = time.monotonic()
        plan = session.plan(kernel)
        if way == "processes":
            session.prestart([found for found in session.kernels if found.id == kernel], wait=True)
        imported_s = time.monotonic() - start
        meet(barrier, int(n_ranks))
        before, began = peak_bytes(), time.time()
        start = time.monotonic()
        if way == "threads" and dsl == "triton":
            in_threads(session, plan)
        else:
            report = session.run(plan)
            assert len(report.rows) == report.n_keys, report.rows
            assert set(report.outcomes) <= {"compiled", "loaded"}, report.outcomes
        seconds = time.monotonic() - start
        session.finish()
    found = {
        "seconds": seconds,
        "imported_s": imported_s,
        "n_keys": plan.n_keys,
        "engine_bytes": peak_bytes() - before,
        "child_bytes": max(peaks.values(), default=0),
        "began": began,
        "ended": began + seconds,
    }
    print(json.dumps(found))


def watch(peaks):
    """A listener that notes the most memory that each compile process had."""
    pids = set()

    def listener(event):
        if event["event"] == "child_start":
            pids.add(event["child"])
        elif event["event"] == "built_in_child":
            for pid in pids:
                peaks[pid] = max(peaks.get(pid, 0), peak_of(pid))

    return listener


def peak_of(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def meet(barrier, n_ranks):
    if barrier:
        (Path(barrier) / str(os.getpid())).touch()
        while len([path for path in Path(barrier).iterdir() if path.name.isdecimal()]) < n_ranks:
            time.sleep(0.01)


def in_threads(session, plan):
    """vLLM's way for Triton: its own asynchronous compile mode over four threads, dispatch on this one."""
    import triton

    with pinned(session) as kernel, ThreadPoolExecutor(VLLM_THREADS) as threads, triton.AsyncCompileMode(threads):
        for _, key in plan.keys:
            launch = kernel._resolve(key.key)
            kernel.kernel.warmup(**launch.arguments, **launch.options, grid=(1,))


@contextmanager
def pinned(session):
    from jitwarm.contract.backend import TargetScope

    kernel = next(record.kernel for record in session.kernels if record.id == "bench:matmul")
    backend = next(backend for backend in session.registry.backends if backend.name == "triton")
    with TargetScope(session.target), backend.pin(session.target), nullcontext():
        yield kernel


if __name__ == "__main__":
    main(*sys.argv[1:])
