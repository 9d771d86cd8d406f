"""The collector: event files in, families of metrics out. Imports `prometheus_client`: import it where metrics are asked for.

Every counter that may ever rise is shown from the beginning, at 0: of a series that appears with its first event, `increase()`
does not see that event.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from jitwarm.contract.kernel import Outcome
from jitwarm.metrics.following import Follower
from jitwarm.metrics.tally import LIBRARIES, UNDECLARED, Series, Tally, worst

Processes = list[tuple[str, Tally]]
Name = TypeVar("Name")
_WARM = frozenset(outcome.value for outcome in Outcome if outcome.is_warm)


class EventCollector(Collector):
    """Shows what the followed processes add up to.

    Where more was appended than one look may read, nothing is shown until later looks have read it: half a sum, followed by the
    whole one, would be read as a restart or as an increase.

    Args:
        follower: Reads the files.
        choose: Which of the followed processes to show; None shows all.
        if_empty: Called once, when all was read and there was no process to show.
    """

    def __init__(
        self,
        follower: Follower,
        choose: Callable[[Processes], Processes] | None = None,
        if_empty: Callable[[], None] = lambda: None,
    ) -> None:
        self._follower = follower
        self._choose = choose or (lambda processes: processes)
        self._if_empty: Callable[[], None] | None = if_empty
        self._lock = threading.Lock()  # servers answer from several threads

    def describe(self) -> Iterable[Metric]:
        """The families, without a look at any file."""
        return _families([])

    def collect(self) -> Iterator[Metric]:
        """Read what was appended since the last call, and give the sums."""
        with self._lock:
            if not self._follower.look():
                return
            tallies = [tally for _, tally in self._choose(self._follower.tallies)]
            if not tallies and self._if_empty is not None:
                self._if_empty()
                self._if_empty = None
            families = _families(tallies) if tallies else []
        yield from families


def _families(tallies: list[Tally]) -> list[Metric]:
    return [
        *_lost(tallies, "compile", "Kernels that compiled after the start."),
        *_lost(tallies, "tuning", "Searches for the best configuration of an autotuned kernel after the start."),
        _reloads(tallies),
        *_keys(tallies),
        _gauge(
            "jitwarm_warmup_seconds",
            "How long the slowest worker planned and warmed up.",
            max((tally.seconds or 0.0 for tally in tallies), default=0.0),
        ),
        _gauge("jitwarm_workers", "Workers that have begun to warm up.", len(tallies)),
        _gauge(
            "jitwarm_watched_workers",
            "Workers in which the monitor listens; in others nothing is counted.",
            sum(tally.is_watched for tally in tallies),
        ),
        _info(tallies),
    ]


def _lost(tallies: list[Tally], what: str, meaning: str) -> Iterator[Metric]:
    """Number and seconds of the compiles, or of the tunings."""
    n: Counter[Series] = Counter(dict.fromkeys(_series(tallies), 0))
    seconds: defaultdict[Series, float] = defaultdict(float, dict.fromkeys(n, 0.0))
    for tally in tallies:
        for (kind, series), count in tally.n_lost.items():
            if kind == what:
                n[series] += count
                seconds[series] += tally.lost_seconds[kind, series]
    total = CounterMetricFamily(f"jitwarm_unexpected_{what}s", meaning, labels=("backend", "kernel"))
    lost = CounterMetricFamily(
        f"jitwarm_unexpected_{what}_seconds", f"Seconds lost: {meaning}", labels=("backend", "kernel")
    )
    for series in sorted(n):
        total.add_metric(series, n[series])
        lost.add_metric(series, seconds[series])
    yield from (total, lost)


def _series(tallies: list[Tally]) -> set[Series]:
    backends = {*LIBRARIES, *(backend for tally in tallies for backend in tally.backends)} if tallies else set()
    return {(backend, UNDECLARED) for backend in backends}.union(*(tally.series for tally in tallies))


def _reloads(tallies: list[Tally]) -> Metric:
    family = CounterMetricFamily(
        "jitwarm_reloads",
        "Kernels that were read from disk after the start: no compile, yet not warm either.",
        labels=("backend",),
    )
    n = Counter(dict.fromkeys((backend for tally in tallies for backend in tally.backends), 0))
    for tally in tallies:
        n.update(tally.n_reloads)
    for backend in sorted(n):
        family.add_metric((backend,), n[backend])
    return family


def _keys(tallies: list[Tally]) -> Iterator[Metric]:
    """Keys by outcome, and how many are cold; ranks that plan the same key count as one."""
    keys, unlisted = _merged(tally.keys for tally in tallies), _merged(tally.unlisted for tally in tallies)
    counts = Counter((outcome, kernel.partition(":")[0]) for (kernel, _), outcome in keys.items())
    family = GaugeMetricFamily("jitwarm_keys", "Keys of the last warm-up.", labels=("outcome", "plugin"))
    for labels in sorted(counts):
        family.add_metric(labels, counts[labels])
    yield family
    cold = [outcome for outcome in (*keys.values(), *unlisted.values()) if outcome not in _WARM]
    yield _gauge(
        "jitwarm_cold_keys",
        "Keys, and kernels that could not list theirs, that should be warm and are not.",
        sum(outcome != Outcome.SKIPPED.value for outcome in cold),
    )


def _merged(ranks: Iterable[dict[Name, str]]) -> dict[Name, str]:
    """The worst outcome of each."""
    found: defaultdict[Name, set[str]] = defaultdict(set)
    for rank in ranks:
        for name, outcome in rank.items():
            found[name].add(outcome)
    return {name: worst(outcomes) for name, outcomes in found.items()}


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _info(tallies: list[Tally]) -> Metric:
    family = InfoMetricFamily("jitwarm", "What runs here, and the name of its event log.", labels=())
    for run, target in sorted({tally.info for tally in tallies}):
        family.add_metric((), {"version": metadata.version("jitwarm"), "target": target, "run": run})
    return family
