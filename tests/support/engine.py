"""Start a real vLLM engine (CPU build) with a tiny model of random weights, answer a request, and say what happened.

    python engine.py SPEC.json ANSWER.json

SPEC: `llm` (arguments of `vllm.LLM`), `calls` ([[worker method, arguments], ...]). ANSWER: `tokens`, `calls` (each: one answer
per worker), or `error`.
"""

import json
import sys
from pathlib import Path


def serve(spec):
    from vllm import LLM, SamplingParams

    llm = LLM(**spec["llm"])
    calls = [llm.collective_rpc(method, args=tuple(args)) for method, args in spec["calls"]]
    out = llm.generate(
        [{"prompt_token_ids": [1, 5, 7]}], SamplingParams(max_tokens=3, detokenize=False, ignore_eos=True)
    )
    return {"tokens": list(out[0].outputs[0].token_ids), "calls": calls}


def main():
    spec, answer = map(Path, sys.argv[1:])
    try:
        document = serve(json.loads(spec.read_text()))
    except Exception as exc:  # noqa: BLE001 - the caller asserts what it is
        document = {"error": f"{type(exc).__name__}: {exc}"}
    answer.write_text(json.dumps(document, default=str))


if __name__ == "__main__":  # vLLM spawns processes that import this file again
    main()
