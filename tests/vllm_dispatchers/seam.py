"""Run in a process of its own: the seam of jitwarm's vLLM integration, in the Python files of a GPU wheel.

    CUDA_VISIBLE_DEVICES="" VLLM_TARGET_DEVICE=cpu python tests/vllm_dispatchers/seam.py WHEEL_DIRECTORY IMPORTS_DIRECTORY

Prints one JSON document: whether `init_device` was wrapped, for each worker class whether its warm-up method was, and which of
the fields that `WarmupConfig.from_vllm` reads are not there.
"""

import importlib
import json
import sys
import types

FIELDS = {
    "VllmConfig": ("model_config", "cache_config", "scheduler_config", "compilation_config", "parallel_config",
                   "speculative_config", "quant_config", "kernel_config", "additional_config", "instance_id"),
    "ModelConfig": ("dtype", "max_model_len", "quantization", "model", "revision", "hf_config_path", "hf_overrides"),
    "CacheConfig": ("cache_dtype",),
    "SchedulerConfig": ("max_num_batched_tokens", "max_num_seqs"),
    "CompilationConfig": ("cudagraph_capture_sizes", "static_forward_context"),
    "ParallelConfig": ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "data_parallel_rank",
                       "prefill_context_parallel_size", "enable_expert_parallel"),
    "SpeculativeConfig": ("num_speculative_tokens",),
    "KernelConfig": ("enable_jit_warmup",),
}  # fmt: skip
WORKERS = ("gpu_worker.Worker", "cpu_worker.CPUWorker", "xpu_worker.XPUWorker")


METHODS = ("load_model", "determine_available_memory", "initialize_from_config", "compile_or_warm_up_model")


def main():
    files, imports = sys.argv[1:]
    sys.path.insert(0, files)
    sys.path.append(imports)
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    from jitwarm.integrations.vllm import register, seam

    original = WorkerWrapperBase.init_device
    register()
    wrapped = {}
    for place in WORKERS:
        module, name = place.split(".")
        worker = getattr(importlib.import_module(f"vllm.v1.worker.{module}"), name)
        seam._around_init_device(types.SimpleNamespace(worker=object.__new__(worker)), lambda: None)
        wrapped[name] = all(getattr(getattr(worker, method), "_jitwarm_wrapped", False) for method in METHODS)
    import vllm.config

    missing = [
        f"{name}.{field}"
        for name, fields in FIELDS.items()
        for field in fields
        if field not in getattr(vllm.config, name).__dataclass_fields__
    ]
    is_wrapped = WorkerWrapperBase.init_device is not original
    sys.stdout.write(json.dumps({"init_device": is_wrapped, **wrapped, "missing": missing}) + "\n")


if __name__ == "__main__":
    main()
