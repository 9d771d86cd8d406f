"""What the events of one process add up to: the numbers that metrics are made of."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from jitwarm.contract.kernel import Outcome

Series = tuple[str, str]  # backend, kernel
# What the monitor also listens at, without a backend of ours.
LIBRARIES = ("flashinfer", "inductor")
UNDECLARED = "undeclared"  # in place of a kernel's id, for a function that no plugin declares

# Where ranks differ about a key, the later one of these holds: a start is as good as its worst rank.
SEVERITY = {
    outcome.value: place
    for place, outcome in enumerate(
        (
            Outcome.SKIPPED,
            Outcome.ALREADY_WARM,
            Outcome.LOADED,
            Outcome.COMPILED,
            Outcome.UNRESOLVED,
            Outcome.TIMED_OUT,
            Outcome.FAILED,
        )
    )
}
_NEEDED = (
    "registered", "run_start", "run_end", "backends", "kernel_planned", "kernel_unlisted", "key_end", "monitor_armed",
    "monitor_ended", "unexpected_compile", "reloaded",
)  # fmt: skip
# Quotes inside a JSON text are escaped, so this finds the field itself and nothing that looks like it.
NEEDED = re.compile(rb'"event":\s*"(?:' + "|".join(_NEEDED).encode() + rb')"')


class Event(msgspec.Struct):
    """The fields that are looked at, of any event."""

    event: str
    mono_ns: int = 0
    run: str = ""
    lineage: str = ""
    target: str = ""
    plugins: dict[str, str] = msgspec.field(default_factory=dict)
    backend: str | None = ""
    kernel: str = ""
    digest: str = ""
    outcome: str = ""
    what: str = "compile"
    by: str = ""
    seconds: float = 0.0


@dataclass
class Tally:
    """The numbers of one process, of the runs with one lineage.

    Attributes:
        n_lost, lost_seconds: Of what happened after the start, by `"compile"` or `"tuning"`, and by series.
        n_reloads: By backend.
        backends: Those that there are.
        series: What may be counted: every planned kernel with its backend.
        keys: Outcome of each key of the last warm-up, by (kernel, digest).
        unlisted: Outcome of each kernel of the last warm-up that could not list its keys.
        info: (run, target) of the last warm-up.
        seconds: Of the last warm-up; None while it goes on.
        is_watched: Whether our monitor listens.
    """

    n_lost: Counter[tuple[str, Series]] = field(default_factory=Counter)
    lost_seconds: dict[tuple[str, Series], float] = field(default_factory=lambda: defaultdict(float))
    n_reloads: Counter[str] = field(default_factory=Counter)
    backends: set[str] = field(default_factory=set)
    series: set[Series] = field(default_factory=set)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    unlisted: dict[str, str] = field(default_factory=dict)
    info: tuple[str, str] = ("", "")
    seconds: float | None = None
    is_watched: bool = False
    _start_ns: int = 0

    def add(self, event: Event) -> None:
        """Take one event into account."""
        handler = getattr(self, f"_on_{event.event}", None)
        if handler:
            handler(event)

    def _on_run_start(self, event: Event) -> None:
        self.keys, self.unlisted, self.seconds = {}, {}, None
        self.info, self._start_ns = (event.run, event.target), event.mono_ns

    def _on_run_end(self, event: Event) -> None:
        self.seconds = (event.mono_ns - self._start_ns) / 1e9

    def _on_backends(self, event: Event) -> None:
        self.backends.update(event.plugins)

    def _on_kernel_planned(self, event: Event) -> None:
        self.series.add((event.backend or "", event.kernel))

    def _on_kernel_unlisted(self, event: Event) -> None:
        self.unlisted[event.kernel] = event.outcome

    def _on_key_end(self, event: Event) -> None:
        self.keys[event.kernel, event.digest] = event.outcome

    def _on_monitor_armed(self, event: Event) -> None:
        self.is_watched = self.is_watched or event.by == "jitwarm"

    def _on_monitor_ended(self, _: Event) -> None:
        self.is_watched = False

    def _on_unexpected_compile(self, event: Event) -> None:
        place = (event.what, (event.backend or "", event.kernel or UNDECLARED))
        self.n_lost[place] += 1
        self.lost_seconds[place] += event.seconds

    def _on_reloaded(self, event: Event) -> None:
        self.n_reloads[event.backend or ""] += 1


def worst(outcomes: Iterable[str]) -> str:
    """The one that holds where ranks differ."""
    return max(outcomes, key=lambda outcome: SEVERITY.get(outcome, len(SEVERITY)))
