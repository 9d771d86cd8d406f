"""The kernels of vLLM's fused MoE layers."""

from jitwarm import JitKernel
from jitwarm_vllm.declaring import declared
from jitwarm_vllm.moe_fused import FusedMoE
from jitwarm_vllm.moe_wna16 import FusedMoEWNA16


def kernels() -> list[JitKernel]:
    """One for integer weights in groups, one for all else."""
    return [declared(FusedMoEWNA16), declared(FusedMoE)]
