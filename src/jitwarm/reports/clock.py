"""One time line for the processes of a run, in seconds since its first event.

On one host all processes share the monotonic clock, which never steps; between hosts only the wall clock is common. So a time is
the event's monotonic one plus the host's own distance between the two clocks. The distance is the median over the host's events:
were the wall clock set while the run goes on, the order of events would stay.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from jitwarm.reports.reading import Log

# Processes whose distances differ by more do not share a clock: the host was started anew, or two hosts have one name.
_SAME_CLOCK_NS = 10_000_000_000


class Clock:
    """Places events of several processes on one time line.

    Args:
        logs: Of all processes.
    """

    def __init__(self, logs: Sequence[Log]) -> None:
        own = {id(log): _distance_ns(log.events) for log in logs}
        self._of = {
            log.process: _shared(own[id(log)], [own[id(other)] for other in logs if other.host == log.host])
            for log in logs
        }
        self.zero_ns = min(
            (event["mono_ns"] + self._of[log.process] for log in logs for event in log.events), default=0
        )

    def seconds(self, log: Log, event: Mapping[str, Any]) -> float:
        """When an event was written, in seconds since the first one."""
        return float(event["mono_ns"] + self._of[log.process] - self.zero_ns) / 1e9


def _distance_ns(events: Iterable[Mapping[str, Any]]) -> int:
    return int(median(event["t_ns"] - event["mono_ns"] for event in events))


def _shared(own_ns: int, of_host_ns: Sequence[int]) -> int:
    return int(median(ns for ns in of_host_ns if abs(ns - own_ns) <= _SAME_CLOCK_NS))
