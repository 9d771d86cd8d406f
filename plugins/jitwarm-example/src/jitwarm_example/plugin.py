"""The entry point: which kernels this package has."""

from jitwarm import Kernel, Target, WarmupConfig, hookimpl


@hookimpl
def jitwarm_kernels(config: WarmupConfig, target: Target) -> list[Kernel]:
    """List our kernels. Imported here rather than at the top, so that listing plugins imports no compiler."""
    del config, target  # all three are for every configuration and target; backends say where they cannot build
    from jitwarm_example.gemm import GEMM
    from jitwarm_example.rms_norm import RMS_NORM
    from jitwarm_example.silu_and_mul import SILU_AND_MUL

    return [RMS_NORM, SILU_AND_MUL, GEMM]
