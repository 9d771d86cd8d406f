"""Folds the logs of one run into a `Start`. An event that lacks a field changes nothing, whatever wrote it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jitwarm.engine.report import ReportBuilder, Row
from jitwarm.errors import UsageError
from jitwarm.reports.clock import Clock
from jitwarm.reports.later import Later
from jitwarm.reports.reading import Event, Log, read_runs
from jitwarm.reports.start import Incident, Key, Process, Start, Unlisted
from jitwarm.reports.tracks import Tracks

_BEFORE_START = frozenset(
    {"registered", "phase_start", "phase_end", "early_start", "early_failed", "loaded_early", "undeclared_compile"}
)
# Whatever a handler meets in an event that lacks a field, or has another shape than ours.
ODD = (KeyError, TypeError, ValueError, AttributeError)
_INCIDENTS: dict[str, Callable[[Event], str]] = {
    "local": lambda e: f"{e['kernel']} is compiled in this process: {e['why']}",
    "load_recompiled": lambda e: f"{e['kernel']}: a compile process had built a key, and yet loading it compiled",
    "quarantined": lambda e: (
        f"{e['kernel']}: a key is not tried again, because {e['why']}; remove {e['file']} to have it tried"
    ),
    "entry_damaged": lambda e: f"{e['kernel']}: a stored entry was damaged, and is built anew",
    "host_failed": lambda e: f"{e['kernel']}: a host lost a key: {e['why']}",
    "hosts_unavailable": lambda e: f"the hosts were not available, the rest was built here: {e['error']}",
    "isolation_unavailable": lambda e: (
        f"no compile process could be started, keys compiled in this process: {e['error']}"
    ),
    "lock_timeout": lambda e: f"another process held a key for too long: {e['error']}",
    "early_failed": lambda e: f"nothing more was built while the weights were loaded: {e['error']}",
    "monitor_blind": lambda e: f"{e['backend']} could not be watched after the warm-up: {e['error']}",
    "record_failed": lambda e: f"what compiled after the warm-up could not be written down: {e['error']}",
    "no_locks": lambda e: f"the file system of {e['root']} knows no locks: two processes may build the same key",
}


def read_starts(names: Sequence[str], root: Path) -> list[Start]:
    """The starts that are named, or the store's newest one; see `reading.read_runs`.

    Raises:
        UsageError: There is no such run, or what is there is no event log, or no process that planned keys wrote one.
    """
    return [fold(logs) for logs in read_runs(names, root)]


def fold(logs: Sequence[Log]) -> Start:
    """The model of one start, of the logs of its processes.

    Raises:
        UsageError: None of them planned keys.
    """
    place = logs[0].path if len(logs) == 1 else logs[0].path.parent
    planners = [log for log in logs if any(event["event"] == "run_start" for event in log.events)]
    if not planners:
        raise UsageError(
            f"{place} is the log of a compile process alone: nothing in it says what was planned",
            "name the run's directory, which has the logs of all of its processes",
        )
    n_starts = max(_keep_last_start(log) for log in planners)
    start = Start(str(planners[0].events[0].get("run") or place.name), str(place))
    start.n_unreadable = sum(log.n_unreadable for log in logs)
    start.n_foreign = sum(log.n_foreign for log in logs)
    _Fold(start, planners, [log for log in logs if log not in planners], is_whole=n_starts == 1).run()
    if n_starts > 1:
        text = f"the log holds {n_starts} starts of this process, which share a run's name; this is the last one"
        start.incidents.insert(0, Incident(0.0, start.processes[0].id, "several_starts", text))
    return start


def _keep_last_start(log: Log) -> int:
    """Of a log in which several starts were written, keep the last. Returns how many there were."""
    begins = [i for i, event in enumerate(log.events) if event["event"] == "run_start"]
    first = begins[-1]
    while first and log.events[first - 1]["event"] in _BEFORE_START:
        first -= 1
    if len(begins) > 1:
        log.events = log.events[first:]
    return len(begins)


class _Fold:
    """One pass over the logs of the processes that planned keys, for the keys; then one over all logs."""

    def __init__(self, start: Start, planners: Sequence[Log], others: Sequence[Log], *, is_whole: bool) -> None:
        # Compile processes of an earlier start that had this run's name are none of this one's.
        children = {
            f"{log.host}:{e.get('child')}" for log in planners for e in log.events if e["event"] == "child_start"
        }
        self._logs = [*planners, *(log for log in others if is_whole or log.process in children)]
        self._clock = Clock(self._logs)
        self._start = start
        for log in planners:
            self._plan(log)
        self._tracks = Tracks(start, {process.id: process for process in [*start.processes, *start.builders]})
        self._later = Later(start)

    def run(self) -> None:
        """Fill the start."""
        first = min((log.events[0] for log in self._logs), key=lambda event: int(event["t_ns"]))
        self._start.started_ns = first["t_ns"]
        for log in self._logs:
            for event in log.events:
                self._take(log, event, self._clock.seconds(log, event))
        self._tracks.finish()
        self._start.uses_unknown -= {key.kernel for key in self._start.keys.values() if key.is_used}
        self._start.incidents.sort(key=lambda incident: incident.at_s)
        self._start.processes.sort(key=lambda process: (process.rank is None, process.rank or 0, process.id))

    def _plan(self, log: Log) -> None:
        """What one process found and did, by the report that it made itself; and its keys."""
        builder = ReportBuilder()
        for event in log.events:
            try:
                builder.add(event)
            except ODD:
                self._start.n_unreadable += 1
        rank = next((event["rank"] for event in log.events if event.get("rank") is not None), None)
        process = Process(log.process, log.host, log.pid, rank, report=builder.report)
        process.start_s = self._clock.seconds(log, log.events[0])
        process.role = next((event.get("role", "") for event in log.events if event["event"] == "run_start"), "")
        if process.role:
            self._start.builders.append(process)
            return
        self._start.processes.append(process)
        for kernel in process.report.kernels.values():
            for row in kernel.rows:
                self._plan_row(process, kernel.id, row)

    def _plan_row(self, process: Process, kernel: str, row: Row) -> None:
        if row.digest is None:
            unlisted = Unlisted(kernel, row.outcome or "", row.error or "")
            if unlisted not in self._start.unlisted:
                self._start.unlisted.append(unlisted)
            return
        new = Key(kernel, row.digest, row.key or "", row.label)
        self._start.keys.setdefault((kernel, row.digest), new).rows[process.id] = row

    def _take(self, log: Log, event: Event, at_s: float) -> None:
        try:
            self._tracks.take(log.process, event, at_s)
            self._later.take(log.process, event, at_s)
            self._note(log.process, event, at_s)
        except ODD:
            self._start.n_unreadable += 1

    def _note(self, process: str, event: Event, at_s: float) -> None:
        """What is neither a track's nor the monitor's."""
        start = self._start
        match event["event"]:
            case "config":
                start.config = start.config or event["config"]
            case "environment":
                start.environment = start.environment or event["variables"]
            case "versions":
                start.versions = start.versions or event["versions"]
            case "key_regions":
                key = start.keys[event["kernel"], event["digest"]]
                key.regions, key.n_regions = event["regions"], int(event["n"])
                key.witness = {name: str(value) for name, value in event["witness"].items()}
            case name if name in _INCIDENTS:
                start.incidents.append(Incident(at_s, process, name, _INCIDENTS[name](event)))
            case _:
                pass
