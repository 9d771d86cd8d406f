"""Run in a process of its own: FlashInfer's tuning as a tuned artifact, by vLLM's own code in the Python files of a GPU wheel.

    CUDA_VISIBLE_DEVICES="" VLLM_TARGET_DEVICE=cpu python tests/vllm_dispatchers/tactics.py WHEEL_DIRECTORY IMPORTS_DIRECTORY

vLLM's `flashinfer_autotune` and FlashInfer's `AutoTuner` are the real ones. What needs a GPU has a stand-in: the model with its
dummy run, vLLM's process groups, the capability, and the clock that times a tactic. Prints one JSON document.
"""

import json
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

SECONDS = {-1: 5.0, 0: 3.0, 1: 1.0}  # tactic 2 raises
N_TIMED, N_DUMMY_RUNS = [], []


def main():
    files, imports = sys.argv[1:]
    sys.path.insert(0, files)
    sys.path.insert(0, str(Path(__file__).parents[2] / "plugins/jitwarm-vllm/src"))
    sys.path.append(imports)
    os.environ["VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"] = tempfile.mkdtemp()
    with _stand_ins():
        sys.stdout.write(json.dumps(observed()))


def observed():
    from flashinfer.autotuner import AutoTuner
    from vllm.model_executor.warmup.kernel_warmup import flashinfer_autotune

    from jitwarm import NeedsModel, Target, WarmupConfig
    from jitwarm.contract.config import LiveObjects
    from jitwarm.contract.tuned import require_artifact
    from jitwarm_vllm import flashinfer_tuning

    runner, config, tuner = stand_in_runner(), WarmupConfig(), AutoTuner.get()
    sm90, found = Target.parse("cuda:90"), {}
    found["without a model"] = len(flashinfer_tuning.artifacts(config, sm90))
    with LiveObjects(None, runner):
        found["on sm 80"] = len(flashinfer_tuning.artifacts(config, Target.parse("cuda:80")))
        with changed(runner.vllm_config.kernel_config, enable_flashinfer_autotune=False):
            found["switched off"] = len(flashinfer_tuning.artifacts(config, sm90))
        [artifact] = flashinfer_tuning.artifacts(config, sm90)
    require_artifact(artifact)

    first = artifact.fingerprint(config)
    os.environ["VLLM_FLASHINFER_AUTOTUNE_SKIP_OPS"] = "stand_in_gemm"
    found["skipped ops are in the fingerprint"] = artifact.fingerprint(config) != first
    artifact.tune(config)
    found["timed though skipped"] = len(N_TIMED)
    del os.environ["VLLM_FLASHINFER_AUTOTUNE_SKIP_OPS"]
    shutil.rmtree(os.environ["VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"])
    found["the same fingerprint again"] = artifact.fingerprint(config) == first

    N_DUMMY_RUNS.clear()
    data = artifact.tune(config)
    found["tuned"] = {"timed": len(N_TIMED) > 0, "dummy runs": len(N_DUMMY_RUNS), "tactic": tactic()}

    forget(tuner)
    found["forgotten"] = tactic()
    artifact.apply(data)
    found["applied"] = tactic()
    flashinfer_autotune(runner)
    found["vLLM's own step after it"] = {"timed": len(N_TIMED), "dummy runs": len(N_DUMMY_RUNS), "tactic": tactic()}
    artifact.revert()
    found["reverted"] = {"tactic": tactic(), "files": len(list(cache_files()))}

    forget(tuner)
    with unwritable_cache():
        artifact.apply(data)
        found["applied, no directory for vLLM"] = tactic()
        artifact.fingerprint(config)
        flashinfer_autotune(runner)
        found["vLLM's own step, in a temporary directory"] = {"timed": len(N_TIMED), "dummy runs": len(N_DUMMY_RUNS)}

    found |= of_bytes(artifact, tuner, data)
    with changed(runner.vllm_config.parallel_config, pipeline_parallel_size=1):
        found["managed store"] = raised(artifact.fingerprint, config)
    found["needs a model"] = raised(config.require_runner) == NeedsModel.__name__
    return found


def of_bytes(artifact, tuner, data):
    """What becomes of bytes that are not as they were, and of those of several ranks."""
    forget(tuner)
    document = json.loads(data)
    other = {**document, "_metadata": {**document["_metadata"], "flashinfer_version": "0.0.1"}}
    no_tactic = {"_metadata": document["_metadata"], "key": []}
    bad = {"cut off": data[:-9], "no document": b"[]", "no tactic": json.dumps(no_tactic).encode(),
           "other environment": json.dumps(other).encode()}  # fmt: skip
    refused = {name: raised(artifact.apply, content) for name, content in bad.items()}
    after = {"tactic": tactic(), "files": len(list(cache_files()))}

    theirs = {
        "_metadata": document["_metadata"],
        "_generation": "x",
        "of rank 1": ["Runner", 4],
        "of both": ["Runner", 4],
    }
    mine = json.dumps({**document, "of both": ["Runner", 1]}).encode()
    merged = json.loads(artifact.merge([mine, json.dumps(theirs).encode()]))
    merged_as = {
        "all entries": set(merged) == (set(document) | set(theirs)) - {"_generation"},
        "the lowest rank counts": merged["of both"][1] == 1,
        "other GPUs": raised(artifact.merge, [data, json.dumps(other).encode()]),
    }
    return {"refused": refused, "after that": after, "merged": merged_as}


def stand_in_runner():
    """A model runner whose dummy run uses one operation of FlashInfer's; a pipeline stage, where vLLM keeps files per rank."""
    import torch

    parallel = SimpleNamespace(data_parallel_rank=0, pipeline_parallel_size=2, enable_elastic_ep=False)
    config = SimpleNamespace(
        parallel_config=parallel,
        kernel_config=SimpleNamespace(enable_flashinfer_autotune=True),
        attention_config=SimpleNamespace(hisparse_config=None),
        cache_config=SimpleNamespace(mamba_block_size=None, kv_cache_layout=None, use_replayssm=False),
        compute_hash=lambda include_version=True: "the configuration",
    )
    return SimpleNamespace(
        vllm_config=config,
        scheduler_config=SimpleNamespace(max_num_batched_tokens=64),
        get_model=torch.nn.Module,
        _dummy_run=lambda **_: N_DUMMY_RUNS.append(1) or use(),
    )


def use():
    """What one launch of the operation does: ask FlashInfer which tactic to take."""
    import torch
    from flashinfer.autotuner import AutoTuner, TunableRunner, TuningConfig

    class StandInRunner(TunableRunner):
        def get_valid_tactics(self, inputs, profile):
            return [0, 1, 2]

        def forward(self, inputs, tactic=-1, do_preparation=False):
            return inputs[0]

        def __hash__(self):
            return 1

    return AutoTuner.get().choose_one("stand_in_gemm", [StandInRunner()], TuningConfig(), [torch.zeros(8, 8)])[1]


tactic = use


def forget(tuner):
    """As in a new process, on a new machine."""
    tuner.clear_cache()
    tuner.reset_statistics()
    shutil.rmtree(os.environ["VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"], ignore_errors=True)
    N_TIMED.clear()
    N_DUMMY_RUNS.clear()


def cache_files():
    return Path(os.environ["VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"]).rglob("*.json")


def raised(function, *arguments):
    try:
        function(*arguments)
    except Exception as exc:  # noqa: BLE001 - its name is the observation
        return type(exc).__name__
    return None


@contextmanager
def changed(owner, **values):
    before = {name: getattr(owner, name) for name in values}
    vars(owner).update(values)
    yield
    vars(owner).update(before)


@contextmanager
def unwritable_cache():
    """A directory that nobody can make, root included."""
    before = os.environ["VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"]
    with tempfile.NamedTemporaryFile() as file:
        os.environ["VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"] = f"{file.name}/below"
        yield
    os.environ["VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR"] = before


@contextmanager
def _stand_ins():
    import torch
    import vllm.distributed.parallel_state as state
    from flashinfer.autotuner import AutoTuner

    state.get_node_count = lambda: 1
    alone = SimpleNamespace(world_size=1, rank_in_group=0, cpu_group=None)
    state.get_world_group = state.get_tp_group = lambda: alone
    state.get_pp_group = lambda: SimpleNamespace(world_size=2, rank_in_group=0)

    def time_tactic(self, runner, inputs, tactic, *_, **__):
        N_TIMED.append(tactic)
        if tactic not in SECONDS:
            raise RuntimeError("this tactic fails")
        return SECONDS[tactic]

    AutoTuner._profile_single_kernel = time_tactic
    torch.cuda.is_current_stream_capturing = lambda: False
    yield


if __name__ == "__main__":
    main()
