"""The TileLang backend. `TileLangKernel` is what authors subclass."""

from jitwarm.backends._tilelang.adapter import TileLangBackend
from jitwarm.backends._tilelang.kernel import TileLangKernel
from jitwarm.contract.backend import Backend
from jitwarm.hookspecs import hookimpl

__all__ = ["TileLangBackend", "TileLangKernel", "plugin"]


class _Plugin:
    """What the entry point `tilelang` yields."""

    @hookimpl
    def jitwarm_backends(self) -> list[Backend]:
        """The TileLang adapter."""
        return [TileLangBackend()]


plugin = _Plugin()
