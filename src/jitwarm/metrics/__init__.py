"""Metrics for Prometheus, made from a run's event files when they are asked for.

Kernels are warmed, and compile after the start, in a server's workers; the page of metrics is served by another process. What the
workers tell is in their event files, so whoever serves the page reads these: no port, no shared memory, nothing in a worker.

Needs `prometheus_client`, the extra `metrics`; vLLM brings it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from jitwarm.environment import default_root
from jitwarm.errors import ToolchainError
from jitwarm.metrics.following import Follower

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from jitwarm.metrics.collecting import EventCollector

__all__ = ["collector", "register"]


def collector(root: str | Path | None = None, run: str | None = None) -> "EventCollector":
    """A collector for any registry of `prometheus_client`; it reads files only when it is asked for metrics.

    Args:
        root: The store; None is the user's own, `JITWARM_CACHE_DIR`.
        run: The run to show, e.g. the server's `JITWARM_RUN_ID`; None sums over all runs that are kept in this store.

    Raises:
        ToolchainError: `prometheus_client` is not installed.
    """
    try:
        from jitwarm.metrics.collecting import EventCollector  # noqa: PLC0415 - an extra brings what it needs
    except ModuleNotFoundError as exc:
        if exc.name != "prometheus_client":
            raise
        raise ToolchainError("prometheus_client is not installed", "pip install 'jitwarm[metrics]'") from exc
    return EventCollector(Follower(Path(root or default_root()) / "events", run))


def register(
    registry: "CollectorRegistry | None" = None, *, root: str | Path | None = None, run: str | None = None
) -> "EventCollector":
    """Register a `collector` of `root` and `run`, and return it.

    Args:
        registry: None is `prometheus_client.REGISTRY`.
        root: As for `collector`.
        run: As for `collector`.

    Raises:
        ToolchainError: `prometheus_client` is not installed.
        ValueError: There is one in this registry already.
    """
    made = collector(root, run)
    from prometheus_client import REGISTRY  # noqa: PLC0415 - an extra brings it

    (REGISTRY if registry is None else registry).register(made)
    return made
