"""The CuTeDSL backend. `CuteKernel` is what authors subclass."""

from jitwarm.backends._cutedsl.adapter import CuteBackend
from jitwarm.backends._cutedsl.kernel import CuteKernel
from jitwarm.contract.backend import Backend
from jitwarm.hookspecs import hookimpl

__all__ = ["CuteBackend", "CuteKernel", "plugin"]


class _Plugin:
    """What the entry point `cutedsl` yields."""

    @hookimpl
    def jitwarm_backends(self) -> list[Backend]:
        """The CuTeDSL adapter."""
        return [CuteBackend()]


plugin = _Plugin()
