"""Event logs of starts that never were: of any size, with ranks, compile processes, failures, and what a monitor saw later.

Every event has the fields that `docs/reference/events.md` gives it. The same arguments make the same log.
"""

import json
import random

from jitwarm.contract.keys import key_digest

T0_NS = 1_790_000_000_000_000_000
MONO_NS = 5_000_000_000_000
OUTCOMES = ("compiled", "compiled", "compiled", "compiled", "loaded", "loaded", "already_warm")


class Writer:
    """The file of one process; times are seconds since the start, put on both clocks."""

    def __init__(self, directory, host, pid, rank=None, *, run="made", wall_ns=T0_NS, mono_ns=MONO_NS):
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / f"{host}-{pid}.jsonl"
        self.own = {"run": run, "pid": pid, **({} if rank is None else {"rank": rank})}
        self.wall_ns, self.mono_ns = wall_ns, mono_ns
        self.lines = []

    def emit(self, at_s, event, **fields):
        ns = round(at_s * 1e9)
        record = {"v": 1, "t_ns": self.wall_ns + ns, "mono_ns": self.mono_ns + ns, **self.own, "event": event, **fields}
        self.lines.append((ns, json.dumps(record)))

    def close(self, torn=""):
        text = "".join(f"{line}\n" for _, line in sorted(self.lines, key=lambda pair: pair[0]))
        self.file.write_text(text + torn)


def key_of(n, kernel):
    """(key text, label, digest) of the n-th key of a kernel."""
    block, dtype, stages = 16 << n % 5, ("bfloat16", "float16", "float8_e4m3fn")[n % 3], 1 + n % 4
    fields = {
        "block_m": ["int", str(block)],
        "dtype": ["str", dtype],
        "n": ["int", str(n)],
        "num_stages": ["int", str(stages)],
    }
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return text, f"block_m={block}, dtype={dtype}, n={n}, num_stages={stages}", key_digest(kernel, text)


def make(directory, *, n_keys=60, n_kernels=6, n_ranks=2, n_workers=4, seed=0, serves=True, host="node1", **changes):
    """Write the log of a start into a directory. `changes` maps `versions`, `config`, `run`, `slower` to other values."""
    chance = random.Random(seed)
    kernels = [f"{('acme', 'example', 'flash')[i % 3]}:kernel_{i}" for i in range(n_kernels)]
    planned = [(kernels[n * n_kernels // n_keys], n) for n in range(n_keys)]
    run, slower = changes.get("run", "made"), changes.get("slower", 1.0)
    ends, built = {}, {}
    for rank in range(n_ranks):
        log = Writer(directory, host, 1000 + rank, rank if n_ranks > 1 else None, run=run)
        _begin(log, changes)
        _plan(log, kernels, planned)
        ends[rank] = _warm(log, directory, host, planned, rank, n_ranks, n_workers, chance, built, slower, run)
        log.emit(ends[rank], "run_end")
        log.emit(ends[rank] + 0.001, "phase_end", phase="warmup")
        if serves:
            _serve(log, kernels, planned, rank, ends[rank] + 0.01, chance)
        log.close()
    return directory


def _begin(log, changes):
    log.emit(0.0, "phase_start", phase="plan")
    log.emit(0.01, "run_start", target="cuda:90", root="/store", on_device=True)
    config = {"dtype": "bfloat16", "max_num_batched_tokens": 8192, "extra": {"acme": {"heads": [8, 16]}}}
    log.emit(0.011, "config", config=config | changes.get("config", {}))
    log.emit(0.012, "plugins_left_out", plugins=[])
    log.emit(0.013, "backends", plugins={"triton": "triton"}, caches={"TRITON_CACHE_DIR": "triton"})
    log.emit(
        0.0135,
        "versions",
        versions={"python": "3.12.3", "toolchains": {"triton": "triton 3.9.0"}} | changes.get("versions", {}),
    )
    log.emit(
        0.014,
        "environment",
        variables={"CUDA_HOME": "/usr/local/cuda", "PATH": "/usr/bin"} | changes.get("environment", {}),
    )


def _plan(log, kernels, planned):
    for i, kernel in enumerate(kernels):
        backend = ("triton", "cutedsl", "tilelang")[i % 3]
        distribution = f"{kernel.partition(':')[0]}-kernels 1.{i}"
        log.emit(
            0.1 + i * 1e-3,
            "kernel_planned",
            kernel=kernel,
            backend=backend,
            distribution=distribution,
            import_path="",
            notes=[],
        )
        for j, n in enumerate(n for owner, n in planned if owner == kernel):
            text, label, digest = key_of(n, kernel)
            at_s = 0.1 + i * 1e-3 + (j + 1) * 1e-7
            log.emit(at_s, "key_planned", kernel=kernel, digest=digest, key=text, label=label)
            regions = [f"{n * 16 + 1} <= num_tokens <= {n * 16 + 16}, top_k = {k}" for k in range(1, 1 + n % 3)]
            log.emit(
                at_s,
                "key_regions",
                kernel=kernel,
                digest=digest,
                regions=regions,
                n=len(regions),
                witness={"num_tokens": str(n * 16 + 1)},
            )
    log.emit(0.2, "phase_end", phase="plan")
    log.emit(0.2001, "phase_start", phase="warmup")


def _warm(log, directory, host, planned, rank, n_ranks, n_workers, chance, built, slower, run):
    """Each key is built by one rank's compile processes and loaded by all."""
    free = {}
    for n in range(n_workers):
        pid = 20_000 + rank * 100 + n
        worker = Writer(directory, host, pid, run=run)
        free[pid] = [0.3 + 0.05 * n, worker]
        log.emit(0.3 + 0.05 * n, "child_start", child=pid, backend="triton")
    at_s = 0.3
    for i, (kernel, n) in enumerate(planned):
        text, label, digest = key_of(n, kernel)
        outcome = OUTCOMES[n % len(OUTCOMES)] if n % 97 != 13 else ("failed", "timed_out", "unresolved")[n // 97 % 3]
        is_builder = i % n_ranks == rank and outcome in ("compiled", "failed", "timed_out")
        if is_builder:
            pid = min(free, key=lambda pid: free[pid][0])
            begin, worker = free[pid]
            took = round(chance.uniform(0.05, 0.6) * slower * (8 if n % 131 == 7 else 1), 4)
            log.emit(begin, "build_start", kernel=kernel, key=text)
            worker.emit(begin + 1e-4, "job_start", kernel=kernel, key=text)
            if outcome == "compiled":
                worker.emit(begin + took, "compile", kernel=kernel, key=text, n=1, seconds=round(took - 2e-4, 4))
                log.emit(begin + took + 2e-4, "built_in_child", kernel=kernel, key=text, n=1, seconds=took)
            worker.emit(
                begin + took + 1e-4,
                "job_end",
                kernel=kernel,
                key=text,
                status="built" if outcome == "compiled" else outcome,
                seconds=took,
            )
            free[pid][0] = begin + took + 1e-3
            built[digest] = begin + took + 3e-4
        begin = max(at_s, built.get(digest, 0.3)) + 1e-4
        log.emit(begin, "key_start", kernel=kernel, digest=digest, label=label)
        error = (
            None
            if outcome in OUTCOMES
            else "ptxas: error : Entry function uses too much shared data (0x3a000 bytes, 0x38c00 max)"
        )
        own = "loaded" if outcome == "compiled" and not is_builder else outcome
        log.emit(begin + 2e-3, "key_end", kernel=kernel, digest=digest, outcome=own, error=error, seconds=2e-3)
        at_s = begin + 2.1e-3
    for _, worker in free.values():
        worker.close()
    return at_s + 0.01


def _serve(log, kernels, planned, rank, at_s, chance):
    log.emit(
        at_s + 1e-3, "undeclared_compile", backend="triton", what="compile", function="acme.sampling:_top_k", kernel="",
        plugin="", key="", digest="", label="BLOCK=256", nearest="", differences=[], why="kernel not declared by any plugin",
        line="declare a kernel for acme.sampling:_top_k", site="acme/sampling.py:20 in top_k", seconds=1e-3, thread="MainThread",
        during="the execution run",
    )  # fmt: skip
    log.emit(at_s + 2e-3, "execution_run", by="jitwarm", status="done", n=4, seconds=2e-3)
    log.emit(at_s + 3e-3, "monitor_armed", by="jitwarm", mode="warn")
    log.emit(at_s + 0.5, "first_token")
    log.emit(at_s + 1, "uses_unknown", kernels=[kernels[-1]])
    for kernel, n in planned:
        if n % 4 and kernel != kernels[-1]:
            log.emit(at_s + 60, "key_used", kernel=kernel, digest=key_of(n, kernel)[2])
    for n in range(3):
        log.emit(
            at_s + 2 + n + rank * 0.1, "unexpected_compile", backend="triton", what="compile" if n else "tuning",
            function=f"acme.ops:_fwd_{n}", kernel=kernels[0] if n < 2 else "", plugin="acme" if n < 2 else "",
            key="", digest="", label=f"stride_kv={16 << n}, num_warps=4", nearest="stride_kv=other, num_warps=4" if n < 2 else "",
            differences=["stride_kv: other -> multiple of 16"] if n < 2 else [],
            why="no declared input gives this key" if n < 2 else "kernel not declared by any plugin",
            line="stride_kv=Choices(IntClass.OTHER, IntClass.MULTIPLE_OF_16)" if n < 2 else "declare acme.ops:_fwd_2",
            site="acme/ops.py:118 in forward", seconds=round(chance.uniform(0.5, 3), 4), thread="MainThread",
        )  # fmt: skip
    log.emit(
        at_s + 6,
        "reloaded",
        backend="triton",
        function="acme.ops:_fwd_1",
        kernel=kernels[0],
        label="num_warps=8",
        site="acme/ops.py:90 in forward",
        seconds=0.012,
    )
    log.emit(at_s + 61, "monitor_ended")
