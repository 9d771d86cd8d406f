"""Time from a dispatch function and its domain to its set of compile keys: jitwarm, vLLM's tracer, and a bare loop.

    python tests/benchmarks/trace.py [--wheel PATH]

All three get the same functions (`dispatches.py`) and the same domains, `m` in 1..N and four values of `k`, and must find the
same keys. jitwarm and its peers take turns. vLLM's tracer comes from a released wheel at run time (`vllm_wheel.py`); at the
largest N it is timed at every 64th `m` only and its time multiplied, since it visits every point alike; the keys are then
compared with those of the bare loop. The times of the other two are never estimates. No time is asserted.
"""

import argparse
import datetime as dt
import gc
import importlib.metadata
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import vllm_wheel
from dispatches import ALL, Key
from rich.console import Console
from rich.table import Table

import jitwarm

SIZES = (8_192, 131_072, 1_048_576)
SECOND_AXIS = (1, 2, 6, 8)
SAMPLED_FROM = 1_000_000
STEP = 64
_ROUNDS = {8_192: (9, 5, 5), 131_072: (9, 2, 2), 1_048_576: (9, 3, 1)}  # of ours, of vLLM's tracer, of the loop

Dispatch = Callable[..., Key]


def ours(dispatch: Dispatch, n: int) -> Sequence[Any]:
    """The keys by jitwarm."""
    return jitwarm.trace(dispatch, m=jitwarm.IntRange(1, n + 1), k=jitwarm.Choices(*SECOND_AXIS)).keys


def loop(dispatch: Dispatch, n: int) -> Sequence[Any]:
    """The keys by calling the function at every point."""
    keys = dict.fromkeys(dispatch(m=m, k=k) for m in range(1, n + 1) for k in SECOND_AXIS)
    return list(keys)


def make_peer(tracer: Any) -> Callable[[Dispatch, int], Sequence[Any]]:
    """The keys by vLLM's tracer."""

    class Kernel(tracer.VllmJitKernel):
        """An owner without a kernel: only its tracer is of interest."""

        CompileKey = Key

        def get_warmup_keys(self) -> list[Any]:
            return []

        def compile(self, compile_key: Any) -> None:
            """Nothing."""

    kernel = Kernel()

    def peer(dispatch: Dispatch, n: int) -> Sequence[Any]:
        step = STEP if n >= SAMPLED_FROM else 1
        m = tracer.WarmupIntRange(1, n + 1, step)
        return kernel._trace_dispatch(dispatch)(m=m, k=tracer.WarmupChoices(*SECOND_AXIS))

    return peer


def seconds(
    function: Callable[[Dispatch, int], Sequence[Any]], dispatch: Dispatch, n: int
) -> tuple[float, Sequence[Any]]:
    """One run: its time, and the keys."""
    gc.collect()
    start = time.perf_counter()
    keys = function(dispatch, n)
    return time.perf_counter() - start, keys


def measure(dispatch: Dispatch, n: int, peer: Callable[[Dispatch, int], Sequence[Any]]) -> dict[str, Any]:
    """Times of the three in turns, and whether their keys are equal."""
    functions = {"ours": ours, "peer": peer, "loop": loop}
    times: dict[str, list[float]] = {name: [] for name in functions}
    found: dict[str, set[str]] = {}
    rounds = dict(zip(functions, _ROUNDS[n], strict=True))
    for turn in range(max(rounds.values())):
        for name, function in functions.items():
            if turn < rounds[name]:
                spent, keys = seconds(function, dispatch, n)
                times[name].append(spent * (STEP if name == "peer" and n >= SAMPLED_FROM else 1))
                found[name] = {jitwarm.encode_key(key) for key in keys}
    sampled = n >= SAMPLED_FROM
    same = found["ours"] == found["loop"] and (
        found["peer"] <= found["loop"] if sampled else found["peer"] == found["loop"]
    )
    return {"times": times, "n_keys": len(found["ours"]), "same": same}


def main() -> int:
    """Measure and print; 1 if any two key sets differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", help="a vLLM wheel, or a directory into which one was unpacked")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES)
    options = parser.parse_args()
    try:
        directory = vllm_wheel.files(options.wheel)
        peer = make_peer(vllm_wheel.tracer(directory))
    except vllm_wheel.UnavailableError as exc:
        sys.exit(f"no vLLM tracer to compare with: {exc}")

    table = Table("dispatch", "m up to", "keys", "same", box=None, pad_edge=False)
    for title in ("ours, ms", "least", "vLLM, ms", "least", "loop, ms", "vLLM : ours", "loop : ours", "growth"):
        table.add_column(title, justify="right")
    all_same = True
    growths = []
    ratios: dict[int, list[tuple[float, float]]] = {n: [] for n in options.sizes}
    for dispatch in ALL:
        smallest = None
        for n in options.sizes:
            result = measure(dispatch, n, peer)
            medians = {name: statistics.median(times) * 1e3 for name, times in result["times"].items()}
            least = {name: min(times) * 1e3 for name, times in result["times"].items()}
            smallest = smallest or least["ours"]
            ratios[n].append((medians["peer"] / medians["ours"], medians["loop"] / medians["ours"]))
            all_same = all_same and result["same"]
            last = n == SIZES[-1] and options.sizes[0] == SIZES[0]
            if last:
                growths.append(least["ours"] / smallest)
            table.add_row(
                dispatch.__name__,
                f"{n:,}",
                str(result["n_keys"]),
                "yes" if result["same"] else "NO",
                f"{medians['ours']:.2f}",
                f"{least['ours']:.2f}",
                f"{medians['peer']:,.0f}{'*' if n >= SAMPLED_FROM else ''}",
                f"{least['peer']:,.0f}",
                f"{medians['loop']:,.0f}",
                f"{ratios[n][-1][0]:,.0f}",
                f"{ratios[n][-1][1]:,.0f}",
                f"{growths[-1]:.2f}" if last else "",
            )
    console = Console(width=150, highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"\n* timed at every {STEP}th m and multiplied by {STEP}; keys compared with the loop's.")
    for n in options.sizes:
        by_peer, by_loop = (sorted(column) for column in zip(*ratios[n], strict=True))
        console.print(
            f"m up to {n:>9,}: vLLM : ours {by_peer[0]:,.0f} to {by_peer[-1]:,.0f}, median {statistics.median(by_peer):,.0f}; "
            f"loop : ours {by_loop[0]:,.0f} to {by_loop[-1]:,.0f}, median {statistics.median(by_loop):,.0f}"
        )
    if growths:
        console.print(
            f"growth of ours, least times, from {SIZES[0]:,} to {SIZES[-1]:,}: {min(growths):.2f} to {max(growths):.2f}"
        )
    versions = f"jitwarm {importlib.metadata.version('jitwarm')}, vLLM {vllm_wheel.version(directory)}"
    command = f"python {Path(__file__).relative_to(Path(__file__).parents[2])}"
    console.print(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}; {command}")
    return 0 if all_same else 1


if __name__ == "__main__":
    sys.exit(main())
