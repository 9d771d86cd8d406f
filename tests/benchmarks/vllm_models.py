"""Keys of vLLM's fused MoE kernels for published models, by model, ranks and target; and what they cost, as a Markdown table.

    python tests/benchmarks/vllm_models.py [--target cuda:90 ...] [--compile MODEL ...] [--most-tokens 8192]

Lists over the Python files of a released vLLM (see vllm_wheel.py), in one process per target, with no GPU. Models that are named
with `--compile` are also compiled, on one rank, each distinct key once. Seconds are those of the processors, not of the clock.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
PLUGIN_TESTS = HERE.parents[2] / "plugins/jitwarm-vllm/tests"
RANKS = ((1, False), (8, False), (8, True))


@dataclasses.dataclass
class Row:
    """One line of the table.

    Attributes:
        model: As published.
        ranks: How its layers are divided.
        target: What is built for.
        n_keys: Kernel -> keys.
        list_s: Seconds of listing.
        n_compiled: Distinct keys that were compiled.
        compile_s: Seconds of compiling them.
        refused: Why there are none.
    """

    model: str
    ranks: str
    target: str
    n_keys: dict[str, int] = dataclasses.field(default_factory=dict)
    list_s: float = 0.0
    n_compiled: int = 0
    compile_s: float = 0.0
    refused: str = ""


def used_s() -> float:
    """Processor seconds of this process and of those that it started and waited for, e.g. the assembler."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def one_target(target_text: str, wheel: list[str], compiled: list[str], most_tokens: int) -> None:
    """In a process of its own: a JSON line per row."""
    sys.path[:0] = [wheel[0], str(PLUGIN_TESTS)]
    sys.path.append(wheel[1])
    import published

    from jitwarm import Target
    from jitwarm.backends._triton.adapter import TritonBackend
    from jitwarm.contract.backend import TargetScope
    from jitwarm_vllm import models, moe

    kernels, target = moe.kernels(), Target.parse(target_text)
    settings = {"extra": {"vllm_kernels": {"device_name": f"{target_text} without tuned files"}}}
    with TargetScope(target), TritonBackend().pin(target):
        for name, document in published.MOE_MODELS.items():
            for tp_size, divides_experts in RANKS:
                row = Row(name, "1" if tp_size == 1 else f"{tp_size}{' EP' if divides_experts else ''}", target_text)
                try:
                    config = models.read(
                        document,
                        tp_size=tp_size,
                        enable_expert_parallel=divides_experts,
                        max_num_batched_tokens=most_tokens,
                        **settings,
                    )
                except models.ModelConfigError as exc:
                    row.refused = exc.message
                else:
                    fill(row, kernels, config, with_compile=name in compiled and tp_size == 1)
                sys.stdout.write(json.dumps(dataclasses.asdict(row)) + "\n")
                sys.stdout.flush()


def fill(row: Row, kernels, config, *, with_compile: bool) -> None:
    """Ask each kernel for its keys, and compile them if that was asked for."""
    for kernel in kernels:
        before = used_s()
        keys = kernel.get_warmup_keys(config)
        listed = used_s()
        row.list_s += listed - before
        row.n_keys[kernel.name] = len(keys)
        if with_compile:
            for key in keys:
                kernel.compile(key)
            row.n_compiled += len(keys)
            row.compile_s += used_s() - listed


def rows_of(target: str, compiled: list[str], most_tokens: int) -> list[Row]:
    """The rows of one target."""
    import vllm_wheel

    wheel = [str(vllm_wheel.files()), str(vllm_wheel.dependencies())]
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, HERE, "--one", target, *wheel, "--most-tokens", str(most_tokens), "--compile", *compiled],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "VLLM_TARGET_DEVICE": "cpu", "TRITON_CACHE_DIR": cache},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [Row(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"model"')]


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| model | ranks | target | gptq_awq | fused_moe | listed in s | compiled | compiled in s |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        counts = [str(row.n_keys.get(name, "")) for name in ("fused_moe_kernel_gptq_awq", "fused_moe_kernel")]
        built = [str(row.n_compiled), f"{row.compile_s:.0f}"] if row.n_compiled else ["", ""]
        cells = [row.model, row.ranks, row.target, *counts, f"{row.list_s:.2f}", *built]
        if row.refused:
            cells = [row.model, row.ranks, row.target, row.refused, *[""] * 4]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=["cuda:90", "cuda:100"])
    parser.add_argument("--compile", nargs="*", default=[], metavar="MODEL")
    parser.add_argument("--most-tokens", type=int, default=8192)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one_target(asked.one[0], asked.one[1:], asked.compile, asked.most_tokens)
        return
    rows = [row for target in asked.target for row in rows_of(target, asked.compile, asked.most_tokens)]
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
