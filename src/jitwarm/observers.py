"""Who else is told of a run: probes, by the ready file, and tracing, by spans."""

import logging
from collections.abc import Callable
from pathlib import Path

from jitwarm.events import Listener
from jitwarm.readiness import ReadyFile
from jitwarm.settings import Settings
from jitwarm.spans import Spans


def _warn(text: str) -> None:
    logging.getLogger("jitwarm").warning("jitwarm: %s", text)


def observers(
    settings: Settings, rank: int | None = None, n_ranks: int = 1, complain: Callable[[str], None] = _warn
) -> list[Listener]:
    """The listeners that settings and environment ask for.

    Args:
        settings: `ready_file` is looked at.
        rank: Of this process; None where there is one process only.
        n_ranks: Ranks on this node that warm up at the same time.
        complain: Called with one sentence for what cannot be told.
    """
    found: list[Listener] = [Spans(complain)]
    if settings.ready_file:
        found.append(ReadyFile(Path(settings.ready_file).expanduser(), rank, n_ranks, complain))
    return found
