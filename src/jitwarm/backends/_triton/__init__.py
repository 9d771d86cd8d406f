"""The Triton backend. `TritonKernel` is what authors subclass."""

from jitwarm.backends._triton.adapter import TritonBackend
from jitwarm.backends._triton.kernel import TritonKernel
from jitwarm.contract.backend import Backend
from jitwarm.hookspecs import hookimpl

__all__ = ["TritonBackend", "TritonKernel", "plugin"]


class _Plugin:
    """What the entry point `triton` yields."""

    @hookimpl
    def jitwarm_backends(self) -> list[Backend]:
        """The Triton adapter."""
        return [TritonBackend()]


plugin = _Plugin()
