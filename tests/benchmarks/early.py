"""What a complete warm-up adds to the cold start of a real vLLM engine (CPU build), by how long the weights take to load.

    python tests/benchmarks/early.py [RUNS] [SECONDS OF LOADING ...]
    python tests/benchmarks/early.py RUNS weights

To be run with an interpreter that has vLLM, jitwarm and the example plugin, on a quiet machine. Each start has its own store;
three ways take turns: no warm-up, a warm-up at the seam only, and one that begins early. The model is tiny; a stand-in for a disk
makes its loading take as long as asked, without using a processor. The keys are the example plugin's, in all three DSLs.

`weights` asks what a builder does to a loader that needs processors all the time: 1.2 GB from a file in the page cache.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from jitwarm.engine.container import usable_cpus
from jitwarm.reports.folding import read_starts

SUPPORT = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(SUPPORT))
from engine_kit import MODEL, environment  # noqa: E402 - beside this file, not installed

WAYS = {"none": {"JITWARM_DISABLE": "1"}, "seam": {"JITWARM_EARLY": "0"}, "early": {"JITWARM_EARLY": "1"}}
GOAL = 1.05
LARGE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128,
    "num_hidden_layers": 10,
}  # fmt: skip
LLM = {
    "load_format": "dummy", "skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True, "max_model_len": 128,
    "max_num_batched_tokens": 128, "max_num_seqs": 4, "worker_cls": "loading_worker.LoadingCPUWorker",
}  # fmt: skip


def started(way, directory, model, loading_s=0.0, **llm):
    """What an engine answers, started with a cold store in `directory`."""
    spec, answer = directory / "spec.json", directory / "answer.json"
    asked = {"llm": {**LLM, **llm, "model": str(model)}, "calls": [["loading_s", []]], "fork": False, "n_tokens": 3}
    spec.write_text(json.dumps(asked))
    path = os.pathsep.join(filter(None, sys.path))
    own = {"JITWARM_PLUGINS": "example", "LOADING": f"seconds {loading_s}", "PYTHONPATH": path, **WAYS[way]}
    environ = {**environment(directory, "", directory / "store"), **own}
    command = [sys.executable, str(SUPPORT / "engine.py"), str(spec), str(answer)]
    done = subprocess.run(command, env=environ, cwd=directory, capture_output=True, text=True, check=False)
    found = json.loads(answer.read_text()) if answer.exists() else {"error": done.stdout[-2000:] + done.stderr[-2000:]}
    if "error" in found:
        sys.exit(f"the engine did not start: {found['error']}")
    return found


def start(way, loading_s):
    """One cold start. Returns its seconds, and those of compiling that were hidden and that were in all."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "model").mkdir()
        (directory / "model" / "config.json").write_text(json.dumps(MODEL))
        found = started(way, directory, directory / "model", loading_s)
        if way == "none":
            return found["start_s"], 0.0, 0.0
        [told] = read_starts([], directory / "store")
        assert told.is_warm, told.cold
        return found["start_s"], told.hidden_s, sum(span.seconds for worker in told.workers for span in worker.builds)


def weights(n_runs):
    """How long real weights take to load, with a builder beside it and without."""
    from weights import write

    config = {**MODEL, **LARGE}
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch, "model")
        model.mkdir()
        (model / "config.json").write_text(json.dumps(config))
        n_bytes = write(model / "model.safetensors", config)  # and into the page cache
        found = {way: [] for way in WAYS}
        for number in range(n_runs):
            for way, so_far in found.items():
                directory = Path(scratch, f"{way}{number}")
                directory.mkdir()
                start = started(way, directory, model, load_format="safetensors")
                so_far.append((start["calls"][0][0], start["start_s"]))
    print(f"{n_bytes / 1e9:.1f} GB of weights, medians of {n_runs}")
    for name, of in (("loading", 0), ("start", 1)):
        none, seam, early = (statistics.median(run[of] for run in found[way]) for way in WAYS)
        print(
            f"{name:>8}: none {none:.2f} s, seam {seam:.2f} s, early {early:.2f} s, "
            f"seam / none {seam / none:.2f}, early / none {early / none:.2f}",
            flush=True,
        )


def main():
    n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if sys.argv[2:] == ["weights"]:
        weights(n_runs)
        return
    print(
        f"{'loading, s':>10}  {'none, s':>8}  {'seam, s':>8}  {'early, s':>8}  seam/none  early/none  hidden of compiled, s"
    )
    for loading_s in [float(text) for text in sys.argv[2:]] or [5.0, 30.0, 60.0]:
        runs = [{way: start(way, loading_s) for way in WAYS} for _ in range(n_runs)]
        seconds = {way: statistics.median(run[way][0] for run in runs) for way in WAYS}
        hidden, compiled = (statistics.median(run["early"][i] for run in runs) for i in (1, 2))
        ratios = [seconds[way] / seconds["none"] for way in ("seam", "early")]
        print(
            f"{loading_s:10.0f}  {seconds['none']:8.1f}  {seconds['seam']:8.1f}  {seconds['early']:8.1f}  "
            f"{ratios[0]:9.2f}  {ratios[1]:10.2f}  {hidden:.1f} of {compiled:.1f}",
            flush=True,
        )
    print(
        f"goal: early/none {GOAL} or less where loading takes longer than the compiles; medians of {n_runs}; "
        f"{usable_cpus()} processors, Python {platform.python_version()}, vLLM {_vllm_version()}, jitwarm {version('jitwarm')}"
    )


def _vllm_version():
    import vllm.version

    return vllm.version.__version__


if __name__ == "__main__":
    main()
