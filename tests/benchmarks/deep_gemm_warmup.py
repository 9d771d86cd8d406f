"""Run over a described device, by `deep_gemm_kernels.py`: which of DeepGEMM's kernels vLLM's own warm-up compiles.

    python deep_gemm_warmup.py TARGET CASES WHEEL_DIRECTORY IMPORTS_DIRECTORY

`CASES` is a JSON list of GEMMs, of experts the first one. The warm-up's own functions choose the numbers of rows (`relax`, its
default) and make the calls; what they ask of a device, of a group and of a workspace is a stand-in. Prints, for each case, the
number of launches and the entries that they used.
"""

import json
import os
import sys
import types

import torch
from drive_deep_gemm import CASES, MOE, TARGET, Experts, Linear, configured, into_nothing, launched

from jitwarm import Target
from jitwarm_vllm import real
from jitwarm_vllm.platform import answering_for

MOST_TOKENS = 8192
_WARMUP = "vllm.model_executor.warmup.deep_gemm_warmup"


class Workspace:
    """Stands for vLLM's workspace, which is on the device."""

    @staticmethod
    def get_simultaneous(*wanted):
        """Tensors of these shapes and types."""
        return [torch.empty(shape, dtype=dtype) for shape, dtype in wanted]


def warmed(warmup, gemm: dict) -> dict:
    """What the warm-up of one layer does."""
    layer = {"linear": Linear, "experts": Experts}[gemm["call"]](gemm)
    launched()
    noted: dict = {"n_launches": 0, "used": set()}
    name = {"linear": "fp8_gemm_nt", "experts": "m_grouped_fp8_gemm_nt_contiguous"}[gemm["call"]]
    call = getattr(warmup, name)

    def note(*args, **keywords):
        call(*args, **keywords)
        noted["n_launches"] += 1
        noted["used"] |= launched()

    setattr(warmup, name, note)
    try:
        if gemm["call"] == "linear":
            warmup._deepgemm_fp8_gemm_nt_warmup(layer.layer.weight, layer.layer.weight_scale_inv, MOST_TOKENS)
        else:
            scales = layer.experts.w1_scale, layer.experts.w2_scale
            warmup._deepgemm_grouped_fp8_gemm_nt_contiguous_warmup(
                layer.w1, layer.w2, *scales, layer.top_k, MOST_TOKENS
            )
    finally:
        setattr(warmup, name, call)
    return {**noted, "used": sorted(noted["used"])}


def main() -> None:
    into_nothing()
    vllm_config = real.module("vllm.config")
    for name in ("vllm.model_executor.kernels.linear.scaled_mm.deep_gemm", f"{MOE}.experts.deep_gemm_moe"):
        real.module(name)
    warmup = real.module(_WARMUP)
    warmup.num_compute_units = lambda *_: int(os.environ["DESCRIBED_MULTIPROCESSORS"])
    warmup.current_workspace_manager = Workspace
    warmup.get_dp_group = lambda: types.SimpleNamespace(world_size=1)
    with answering_for(Target.parse(TARGET)), vllm_config.set_current_vllm_config(configured(vllm_config)):
        found = [warmed(warmup, gemm) for gemm in json.loads(CASES)]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
