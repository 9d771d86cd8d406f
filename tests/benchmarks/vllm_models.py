"""Keys of vLLM's kernels for published models, by model, ranks and target; and what they cost, as a Markdown table.

    python tests/benchmarks/vllm_models.py [--target cuda:90 ...] [--compile MODEL ...] [--most-tokens 8192]
    python tests/benchmarks/vllm_models.py --whole [--model MODEL ...] [...]

Of the fused MoE kernels, for many models; or with `--whole` of every kernel that a server launches, for one model of each kind.
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
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve()
PLUGIN_TESTS = HERE.parents[2] / "plugins/jitwarm-vllm/tests"
# Tokens in attention's block as vLLM's log says them, where a state decides it.
BLOCK_SIZES = {"Granite-4.0-H-Small": {"block_size": 4096}, "Qwen3-Next-80B-A3B": {"block_size": 1056}}
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
        left_out: Kernel -> why it has none.
        n_compiled: Distinct keys that were compiled.
        compile_s: Seconds of compiling them.
        refused: Why there are none.
    """

    model: str
    ranks: str
    target: str
    n_keys: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    list_s: float = 0.0
    n_compiled: int = 0
    compile_s: float = 0.0
    refused: str = ""


def used_s() -> float:
    """Processor seconds of this process and of those that it started and waited for, e.g. the assembler."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def one_target(target_text: str, wheel: list[str], asked: argparse.Namespace) -> None:
    """In a process of its own: a JSON line per row."""
    sys.path[:0] = [wheel[0], str(PLUGIN_TESTS)]
    sys.path.append(wheel[1])
    from jitwarm import Target
    from jitwarm.backends._triton.adapter import TritonBackend
    from jitwarm.contract.backend import TargetScope
    from jitwarm_vllm import models

    target = Target.parse(target_text)
    # All of vLLM is imported here: under the stand-in driver some of it would fail.
    names, kernels, read = whole(asked.most_tokens) if asked.whole else experts(asked.most_tokens, target_text)
    with TargetScope(target), TritonBackend().pin(target):
        chosen = [name for name in names if name in asked.model or not asked.model]
        for name, (tp_size, divides_experts) in [(name, ranks) for name in chosen for ranks in RANKS]:
            row = Row(name, "1" if tp_size == 1 else f"{tp_size}{' EP' if divides_experts else ''}", target_text)
            try:
                config = read(name, tp_size, divides_experts)
            except models.ModelConfigError as exc:
                row.refused = exc.message
            else:
                fill(row, kernels, config, with_compile=name in asked.compile and tp_size == 1)
            sys.stdout.write(json.dumps(dataclasses.asdict(row)) + "\n")
            sys.stdout.flush()


def experts(most_tokens: int, target: str):
    """Models, the fused MoE kernels, and what reads a model's configuration."""
    import published

    from jitwarm_vllm import models, moe

    def read(name, tp_size, divides_experts):
        return models.read(
            published.MOE_MODELS[name],
            tp_size=tp_size,
            enable_expert_parallel=divides_experts,
            max_num_batched_tokens=most_tokens,
            extra={"vllm_kernels": {"device_name": f"{target} without tuned files"}},
        )

    return published.MOE_MODELS, moe.kernels(), read


def whole(most_tokens: int):
    """The same for all kernels, as a server launches them that runs attention on Triton and model runner V2."""
    import published

    from jitwarm import WarmupConfig
    from jitwarm_vllm import plugin

    def read(name, tp_size, divides_experts):
        file = Path(tempfile.mkdtemp()) / "config.json"
        file.write_text(json.dumps(published.WHOLE_MODELS[name]))
        own = {
            "model": str(file), "attention_backend": "TRITON_ATTN", "use_v2_model_runner": True,
            "tensor_parallel_size": tp_size, "enable_expert_parallel": divides_experts, **BLOCK_SIZES.get(name, {}),
        }  # fmt: skip
        sizes = (1, 2, 4, *range(8, 257, 8))
        return WarmupConfig(
            max_num_batched_tokens=most_tokens, max_num_seqs=256, tp_size=tp_size, max_model_len=8192,
            cudagraph_capture_sizes=sizes, extra={"vllm_kernels": own},
        )  # fmt: skip

    kernels = plugin.jitwarm_kernels(WarmupConfig(extra={"vllm_kernels": {"model": "any"}}), None)
    return published.WHOLE_MODELS, kernels, read


def fill(row: Row, kernels, config, *, with_compile: bool) -> None:
    """Ask each kernel for its keys, and compile them if that was asked for."""
    from jitwarm import JitwarmError

    for kernel in kernels:
        before = used_s()
        try:
            keys = kernel.get_warmup_keys(config)
        except JitwarmError as exc:
            row.left_out[kernel.name] = exc.message
            continue
        listed = used_s()
        row.list_s += listed - before
        row.n_keys[kernel.name] = len(keys)
        if with_compile:
            for key in keys:
                kernel.compile(key)
            row.n_compiled += len(keys)
            row.compile_s += used_s() - listed


def rows_of(target: str, asked: argparse.Namespace) -> list[Row]:
    """The rows of one target."""
    import vllm_wheel

    wheel = [str(vllm_wheel.files()), str(vllm_wheel.dependencies())]
    options = ["--most-tokens", str(asked.most_tokens), *(["--whole"] if asked.whole else [])]
    options += ["--model", *asked.model, "--compile", *asked.compile]
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, HERE, "--one", target, *wheel, *options],
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


def whole_table(rows: list[Row]) -> str:
    """Markdown; keys by kernel, and for what is left out the reason behind it."""
    lines = ["| model | ranks | target | keys | by kernel | listed in s | compiled | compiled in s |", "|---" * 8 + "|"]
    for row in rows:
        families = Counter()
        for name, n in row.n_keys.items():
            families["sampler" if name.startswith("sampler_") else name] += n
        by_kernel = [f"{name} {n}" for name, n in sorted(families.items()) if n]
        by_kernel += [f"{name}: {why}" for name, why in sorted(row.left_out.items())]
        built = [str(row.n_compiled), f"{row.compile_s:.0f}"] if row.n_compiled else ["", ""]
        n_keys = sum(row.n_keys.values())
        cells = [
            row.model,
            row.ranks,
            row.target,
            str(n_keys),
            row.refused or ", ".join(by_kernel),
            f"{row.list_s:.2f}",
            *built,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="+", default=["cuda:90", "cuda:100"])
    parser.add_argument("--compile", nargs="*", default=[], metavar="MODEL")
    parser.add_argument("--most-tokens", type=int, default=8192)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--model", nargs="*", default=[])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one_target(asked.one[0], asked.one[1:], asked)
        return
    rows = [row for target in asked.target for row in rows_of(target, asked)]
    sys.stdout.write((whole_table if asked.whole else table)(rows) + "\n")


if __name__ == "__main__":
    main()
