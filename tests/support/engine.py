"""Start a real vLLM engine (CPU build) with a tiny model of random weights, answer a request, and say what happened.

    python engine.py SPEC.json ANSWER.json

SPEC: `llm` (arguments of `vllm.LLM`), `calls` ([[worker method, arguments], ...]), `fork` (start workers by it),
`then` (arguments of a second one, in the same process, once the first is gone), `n_tokens` (0 asks nothing of it).
ANSWER: `tokens`, `calls` (each: one answer per worker), `start_s` (until it is ready for a request), or `error`.
"""

import json
import os
import sys
import time
from pathlib import Path


def serve(spec):
    from vllm import LLM, SamplingParams

    if spec["fork"]:
        _fork_workers()
    begin = time.perf_counter()
    llm = LLM(**spec["llm"])
    start_s = time.perf_counter() - begin
    calls = [llm.collective_rpc(method, args=tuple(args)) for method, args in spec["calls"]]
    tokens = []
    if spec["n_tokens"]:
        sampling = SamplingParams(max_tokens=spec["n_tokens"], detokenize=False, ignore_eos=True)
        [out] = llm.generate([{"prompt_token_ids": [1, 5, 7]}], sampling)
        tokens = list(out.outputs[0].token_ids)
    if spec.get("then"):
        _forget(llm)
        tokens += serve({**spec, "llm": spec["then"], "then": None, "calls": []})["tokens"]
    return {"tokens": tokens, "calls": calls, "start_s": start_s}


def _forget(llm):
    """As who swaps models in one process: vLLM's groups belong to the process and must go first."""
    from vllm.distributed import cleanup_dist_env_and_memory

    llm.llm_engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def _fork_workers():
    """vLLM's CPU platform sets `spawn` whatever was asked for; on CUDA `fork` is what an offline `LLM()` uses."""
    from vllm.platforms import current_platform

    original = current_platform.check_and_update_config

    def check_and_update_config(vllm_config):
        original(vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    current_platform.check_and_update_config = check_and_update_config


def main():
    spec, answer = map(Path, sys.argv[1:])
    try:
        document = serve(json.loads(spec.read_text()))
    except Exception as exc:  # noqa: BLE001 - the caller asserts what it is
        document = {"error": f"{type(exc).__name__}: {exc}"}
    answer.write_text(json.dumps(document, default=str))


if __name__ == "__main__":  # vLLM spawns processes that import this file again
    main()
