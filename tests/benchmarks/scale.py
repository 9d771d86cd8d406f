"""How a start scales with ranks and processors: a model fed with costs that are measured here, and checked against what is here.

    python tests/benchmarks/scale.py [DSL]

Costs are measured with one rank: seconds of compiling a key, of loading one, and of making a compile process ready. Then 1, 2, 4
and 8 ranks really share one store, and the model is asked for the same. What it says of larger machines stands below.

The model: every rank has a loader and compile processes, each on at most one processor, and all that are busy share the
processors evenly. A compile process takes the next key that nobody has begun; a loader loads a key when it is built.
"""

import heapq
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from build import await_quiet, install, start

from jitwarm.engine.container import usable_cpus

MAX_WORKERS = 16  # as in jitwarm.session
READY, BUILT = -1, -2  # what a compile process has come to; a loader is its rank
LARGER = [(8, 96, 300), (8, 192, 300), (64, 192, 300), (512, 192, 300)]  # ranks, processors, keys


@dataclass(frozen=True)
class Costs:
    """Processor seconds.

    Attributes:
        compile_s: Of one key.
        load_s: Of one key, in each rank.
        ready_s: Until a forked compile process can begin: the plugin's imports.
    """

    compile_s: float
    load_s: float
    ready_s: float


def simulate(costs, n_ranks, n_cpus, n_keys):
    """Seconds until the last rank has loaded its last key."""
    n_workers = max(1, min(MAX_WORKERS, n_cpus // n_ranks))
    machine = Machine(n_cpus)
    waiting, built = n_keys, 0
    loaded, is_loading = [0] * n_ranks, [False] * n_ranks
    for _ in range(min(n_ranks * n_workers, n_keys)):
        machine.begin(costs.ready_s, READY)
    while machine.busy:
        who = machine.next_end()
        if who in (READY, BUILT):
            built += who == BUILT
            if waiting:
                waiting -= 1
                machine.begin(costs.compile_s, BUILT)
        else:
            loaded[who] += 1
            is_loading[who] = False
        for other in range(n_ranks) if who in (READY, BUILT) else (who,):
            if not is_loading[other] and loaded[other] < built:
                is_loading[other] = True
                machine.begin(costs.load_s, other)
    return machine.now


class Machine:
    """Processors that all busy processes share evenly, each on one at most."""

    def __init__(self, n_cpus):
        self.now = 0.0
        self._n_cpus = n_cpus
        self._served = 0.0  # seconds that each process that is busy all the time has had
        self._ends = []
        self._numbers = count()

    @property
    def busy(self):
        return bool(self._ends)

    def begin(self, work, who):
        heapq.heappush(self._ends, (self._served + work, next(self._numbers), who))

    def next_end(self):
        rate = min(1.0, self._n_cpus / len(self._ends))
        served, _, who = heapq.heappop(self._ends)
        self.now += (served - self._served) / rate
        self._served = served
        return who


def ranks(site, dsl, n_ranks, root):
    """(seconds until the last has ended, the answers)."""
    await_quiet()
    workers = max(1, usable_cpus() // n_ranks)
    for file in Path(root).iterdir():
        if file.name.isdecimal():
            file.unlink()
    started = [start(site, dsl, "processes", workers, root, n_ranks) for _ in range(n_ranks)]
    found = []
    for process in started:
        out, _ = process.communicate()
        assert process.returncode == 0, process.args
        found.append(json.loads(out.splitlines()[-1]))
    return max(one["ended"] for one in found) - min(one["began"] for one in found), found[0]["n_keys"]


def measure(site, dsl):
    """Costs, and the number of keys."""
    with tempfile.TemporaryDirectory() as root:
        _, n_keys = ranks(site, dsl, 1, root)
        events = [json.loads(line) for log in Path(root).glob("store/events/*/*.jsonl") for line in log.open()]
        built = [event["seconds"] for event in events if event["event"] == "built_in_child"]
        load_s = ranks(site, dsl, 1, root)[0] / n_keys
    compile_s = statistics.median(built)
    # The first key of each process has its imports in it.
    return Costs(compile_s, load_s, max(0.0, max(built) - compile_s)), n_keys


def main():
    dsl = sys.argv[1] if len(sys.argv) > 1 else "triton"
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch, "site")
        install(site)
        costs, n_keys = measure(site, dsl)
        print(f"{dsl}, {n_keys} keys: {costs}")
        print("\n| ranks | processors | keys | measured, s | model, s |\n|---|---|---|---|---|")
        for n_ranks in (1, 2, 4, 8):
            with tempfile.TemporaryDirectory() as root:
                seconds, _ = ranks(site, dsl, n_ranks, root)
            model_s = simulate(costs, n_ranks, usable_cpus(), n_keys)
            print(f"| {n_ranks} | {usable_cpus()} | {n_keys} | {seconds:.1f} | {model_s:.1f} |", flush=True)
    for n_ranks, n_cpus, n in LARGER:
        print(f"| {n_ranks} | {n_cpus} | {n} | | {simulate(costs, n_ranks, n_cpus, n):.1f} |")


if __name__ == "__main__":
    main()
