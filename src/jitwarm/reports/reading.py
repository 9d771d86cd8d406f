"""Finds the event files of a run and reads them: torn last lines, lines of other versions and lines that are none are counted.

A log comes from elsewhere (another host, an older or newer jitwarm, a full disk), so nothing in it is believed: a line whose
fields are not of the types that events have is left out like a torn one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, cast

import msgspec

from jitwarm.errors import UsageError

Event = dict[str, Any]

_VERSION = 1
_N_NAMES = 5
_Outcome = Literal["compiled", "loaded", "already_warm", "skipped", "failed", "timed_out", "unresolved"]


class _Event(TypedDict, total=False):
    """The fields that reports look at, with their types; others are dropped."""

    v: Required[Literal[1]]
    t_ns: Required[int]
    mono_ns: Required[int]
    pid: Required[int]
    event: Required[str]
    run: str
    rank: int | None
    backend: str | None
    by: str | None
    caches: dict[str, str]
    child: int
    config: dict[str, Any]
    differences: list[str]
    digest: str | None
    distribution: str
    during: str
    error: str | None
    file: str
    function: str | None
    hook: str
    host: str
    import_path: str
    kernel: str | None
    kernels: list[str]
    key: str | None
    label: str | None
    line: str | None
    mode: str | None
    n: int
    nearest: str | None
    notes: list[str]
    on_device: bool
    outcome: _Outcome
    phase: str
    plugin: str | None
    plugins: list[str] | dict[str, str]
    reason: str | None
    regions: list[str]
    role: str
    root: str
    seconds: float
    site: str | None
    status: str
    target: str
    variables: dict[str, str]
    versions: dict[str, Any]
    what: str | None
    why: str | list[str] | None
    witness: dict[str, str]


@dataclass
class Log:
    """The file of one process.

    Attributes:
        path: The file.
        host: Where the process ran; process ids are unique there only.
        pid: The process.
        process: Names it in a run: `host:pid`.
        events: In the order in which they were written.
        n_unreadable: Lines that are no event; the last line of a killed process may be torn.
        n_foreign: Events of another version.
    """

    path: Path
    host: str = ""
    pid: int = 0
    process: str = ""
    events: list[Event] = field(default_factory=list)
    n_unreadable: int = 0
    n_foreign: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written: its process ended before its first event, beside others that did not."""
        return not (self.events or self.n_unreadable or self.n_foreign)


def read_runs(names: Sequence[str], root: Path) -> list[list[Log]]:
    """The logs of each run that is named; files of one run belong together, wherever they lie.

    Args:
        names: Directories of runs, files, or names of runs in the store; none means the store's newest run.
        root: The store.

    Raises:
        UsageError: There is no such run, or what is there is no event log.
    """
    runs: list[list[Log]] = []
    loose: dict[str, list[Log]] = {}
    empty: list[Path] = []
    for name in names or [str(newest(root / "events"))]:
        place = _place(name, root)
        if place.is_dir():
            runs.append(read_directory(place))
            continue
        log = read_log(place)
        if log.is_empty:
            empty.append(place)
            continue
        _usable([log], place)
        run = str(log.events[0].get("run"))
        if run not in loose:
            loose[run] = []
            runs.append(loose[run])
        loose[run].append(log)
    return runs or [_usable([], empty[0])]


def read_directory(directory: Path) -> list[Log]:
    """The logs of one run's directory, or of the newest run of a store.

    Raises:
        UsageError: It holds no event log.
    """
    files = _files(directory)
    if not files and (directory / "events").is_dir():
        directory = newest(directory / "events")
        files = _files(directory)
    if not files:
        raise UsageError(
            f"{directory} holds no event log",
            "a run's directory is <store>/events/<run>, with one .jsonl file for each process",
        )
    return _usable([read_log(file) for file in files], directory)


def newest(events: Path) -> Path:
    """The directory of the run that was written to last.

    Raises:
        UsageError: There is none.
    """
    runs = _runs(events)
    if not runs:
        raise UsageError(
            f"no run has left an event log in {events}", "name a run's directory or file, or the store: --root"
        )
    return runs[0]


def read_log(file: Path) -> Log:
    """One file. Never fails for what is in it.

    Raises:
        UsageError: It cannot be read.
    """
    host, _, pid = file.stem.rpartition("-")
    log = Log(file)
    try:
        lines = file.read_bytes().splitlines()
    except OSError as exc:
        raise UsageError(
            f"{file} cannot be read: {exc.strerror}", "name a run's directory or one of its .jsonl files"
        ) from exc
    for line in lines:
        _take(log, line)
    log.pid = int(pid) if pid.isdecimal() else log.events[0]["pid"] if log.events else 0
    log.host = host if pid.isdecimal() else ""
    log.process = f"{log.host}:{log.pid}" if log.host else str(log.pid)
    return log


_DECODER = msgspec.json.Decoder(_Event)


def _take(log: Log, line: bytes) -> None:
    if not line.strip():
        return
    try:
        log.events.append(cast("Event", _DECODER.decode(line)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        if _is_foreign(line):
            log.n_foreign += 1
        else:
            log.n_unreadable += 1


def _is_foreign(line: bytes) -> bool:
    """Whether it is an event of another version."""
    try:
        event = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(event, dict) and "event" in event and isinstance(event.get("v"), int) and event["v"] != _VERSION


def _usable(logs: list[Log], place: Path) -> list[Log]:
    """Those with events.

    Raises:
        UsageError: There is none, with the likely reason.
    """
    found = [log for log in logs if log.events]
    if found:
        return found
    if any(log.n_foreign for log in logs):
        raise UsageError(
            f"{place} holds events of another version only, not of version {_VERSION}",
            "read it with the jitwarm that wrote it",
        )
    if any(log.n_unreadable for log in logs):
        raise UsageError(
            f"{place} is no event log: none of its lines is an event",
            "event logs are <store>/events/<run>/*.jsonl; what `jitwarm warm --json` printed is for `jitwarm check`",
        )
    raise UsageError(f"{place} is empty: no event was written", "the process may have ended before its store was open")


def _place(name: str, root: Path) -> Path:
    path = Path(name)
    if path.exists():
        return path
    in_store = root / "events" / name
    if path.name == name and in_store.is_dir():
        return in_store
    raise UsageError(
        f"there is no run {name!r}: no such file or directory, and none of that name in {root}", _known(root)
    )


def _known(root: Path) -> str:
    names = [run.name for run in _runs(root / "events")]
    more = f" and {len(names) - _N_NAMES} more" if len(names) > _N_NAMES else ""
    return (
        f"the newest runs there are {', '.join(names[:_N_NAMES])}{more}"
        if names
        else "it holds no run; --root names another store"
    )


def _runs(events: Path) -> list[Path]:
    """The directories of runs, the one that was written to last first."""
    found = []
    for directory in _listed(events):
        written = [_mtime(file) for file in _files(directory)]
        if written:
            found.append((max(written), directory))
    return [directory for _, directory in sorted(found, reverse=True)]


def _files(directory: Path) -> list[Path]:
    return [file for file in _listed(directory) if file.suffix == ".jsonl"]


def _listed(directory: Path) -> Iterable[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _mtime(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0  # it is pruned at this moment
