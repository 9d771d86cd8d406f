"""The Triton backend. `TritonKernel` is what authors subclass."""

from jitwarm.backends._triton.adapter import TritonBackend
from jitwarm.backends._triton.kernel import TritonKernel
from jitwarm.backends._triton.replay import LearnedFunctions
from jitwarm.contract.backend import Backend
from jitwarm.contract.config import WarmupConfig
from jitwarm.hookspecs import hookimpl

__all__ = ["TritonBackend", "TritonKernel", "plugin"]


class _Plugin:
    """What the entry point `triton` yields."""

    @hookimpl
    def jitwarm_backends(self) -> list[Backend]:
        """The Triton adapter."""
        return [TritonBackend()]

    @hookimpl
    def jitwarm_kernels(self, config: WarmupConfig) -> list[LearnedFunctions]:
        """What was learned of functions that nobody declares."""
        return [LearnedFunctions()] if config.for_plugin("triton").get("learned") else []


plugin = _Plugin()
