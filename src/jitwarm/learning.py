"""`jitwarm learn`: what servers wrote down becomes `jitwarm.lock.toml`, without what the declarations list by now."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.learned import VERSION, Learned, LearnedFunction, LearnedKey, Seen
from jitwarm.contract.target import Target
from jitwarm.errors import UsageError
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings, read_config

Entry = TypeVar("Entry", LearnedKey, LearnedFunction)
_HEADER = """\
# Kernels that compiled after a warm-up, because no declaration lists them for that configuration. Written by `jitwarm learn`.
# Review it, delete what is not to be warmed, commit it; JITWARM_LEARNED_KEYS names it to the next start, bake and CI. An entry
# goes when a declaration covers it: widen get_warmup_keys, run `jitwarm learn` again.
"""


@dataclass(frozen=True)
class Lesson:
    """What learning came to.

    Attributes:
        learned: What belongs into the file.
        new: Of these, what was not in the file before.
        covered: What was recorded or in the file, and is declared by now.
        n_records: Misses that were read.
    """

    learned: Learned
    new: list[Seen] = field(default_factory=list)
    covered: list[Seen] = field(default_factory=list)
    n_records: int = 0


def learn(records: Iterable[Mapping[str, Any]], known: Learned, declared: "Declared") -> Lesson:
    """Merge recorded misses into what was learned before, and drop what is declared by now.

    Args:
        records: As `store.read_records` gives them, of any number of hosts.
        known: The file as it is. Its counts are a minimum: records that it was made from may be gone.
        declared: What the declarations list.
    """
    found: dict[tuple[str, ...], Any] = {}
    n_records = 0
    for record in records:
        n_records += 1
        entry = _entry(record)
        identity = _identity(entry)
        found[identity] = _both(found[identity], entry) if identity in found else entry
    before = {_identity(entry): entry for entry in (*known.keys, *known.functions)}
    for identity, old in before.items():
        found[identity] = _merged(old, found[identity]) if identity in found else old
    covered = [entry for entry in found.values() if declared.covers(entry)]
    kept = [found[identity] for identity in sorted(found) if found[identity] not in covered]
    keys = tuple(entry for entry in kept if isinstance(entry, LearnedKey))
    functions = tuple(entry for entry in kept if isinstance(entry, LearnedFunction))
    new = [entry for entry in kept if _identity(entry) not in before]
    return Lesson(Learned(keys, functions), new, covered, n_records)


class Declared:
    """What the installed plugins list for a configuration and a target.

    Args:
        config: What serving ran with. What it had learned by then is left out: that is no declaration.
        settings: Which plugins are loaded, say.
        target: What it ran on.
    """

    def __init__(self, config: WarmupConfig, settings: Settings, target: Target) -> None:
        self._session = Session(Asked(_without_learned(config), settings), target)
        self._plan = self._session.plan()
        self._keys = {(kernel.id, key.text) for kernel, key in self._plan.keys}
        self.target = str(self._session.target)

    def covers(self, entry: Seen) -> bool:
        """Whether the plan lists it; for a function, whether a kernel of this function has a key that compiles to the same."""
        if entry.targets and self.target not in entry.targets:
            return False
        if isinstance(entry, LearnedKey):
            return (entry.kernel, entry.key) in self._keys
        return isinstance(entry, LearnedFunction) and entry.label in self._labels_of(entry)

    def close(self) -> None:
        """End what the plan has started."""
        self._session.finish()

    def _labels_of(self, entry: LearnedFunction) -> set[str]:
        try:
            module, _, name = entry.function.partition(":")
            function = reduce(getattr, name.split("."), import_module(module))
        except Exception:  # noqa: BLE001 - it is no longer there, or fails to import: nobody declares it
            return set()
        labels = set()
        for planned in self._plan.kernels:
            record = next(kernel for kernel in self._session.kernels if kernel.id == planned.id)
            labels |= self._session.specializations(record, planned, function)
        return labels


def _without_learned(config: WarmupConfig) -> WarmupConfig:
    extra = {
        plugin: {name: value for name, value in values.items() if name != "learned"}
        for plugin, values in config.extra.items()
    }
    return replace(config, extra=extra)


def run_of(root: Path) -> tuple[WarmupConfig, str]:
    """Configuration and target of a store's newest run.

    Raises:
        UsageError: No kept run says them.
    """
    logs = sorted(root.glob("events/*/*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for log in logs:
        said = {event["event"]: event for event in _events(log)}
        if "config" in said and "run_start" in said:
            return read_config(said["config"]["config"]), said["run_start"]["target"]
    raise UsageError(f"no run in {root} says which configuration it served", "give --config and --target")


def to_toml(learned: Learned) -> str:
    """The file's text."""
    parts = [_HEADER, f"version = {VERSION}\n"]
    for name, entries in (("key", learned.keys), ("function", learned.functions)):
        for entry in entries:
            lines = [f"{field} = {_value(value)}" for field, value in _ordered(entry) if value not in ("", ())]
            parts.append("\n".join([f"[[{name}]]", *lines]) + "\n")
    return "\n".join(parts)


def _ordered(entry: Seen) -> Iterator[tuple[str, Any]]:
    """What names an entry first, then where it was seen, the long text last."""
    values = dict(vars(entry))
    names = [
        "kernel",
        "backend",
        "function",
        "label",
        "n",
        "hosts",
        "targets",
        "first",
        "last",
        "site",
        "why",
        "key",
        "replay",
    ]
    return ((name, values[name]) for name in names if name in values)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # JSON's text of a string is TOML's, but for one character that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _entry(record: Mapping[str, Any]) -> LearnedKey | LearnedFunction:
    day = datetime.fromtimestamp(record["t_ns"] / 1e9, UTC).date().isoformat()
    seen = {
        "label": record["label"],
        "why": record["why"],
        "site": record["site"],
        "hosts": (record["host"],),
        "targets": (record["target"],),
        "first": day,
        "last": day,
    }
    if record["kernel"] and record["key"]:
        return LearnedKey(**seen, kernel=record["kernel"], key=record["key"])
    function = record["function"]
    can_be_found = "<locals>" not in function and not function.startswith("__main__:")
    replay = record["replay"] if can_be_found else ""
    return LearnedFunction(**seen, backend=record["backend"], function=function, replay=replay)


def _identity(entry: Seen) -> tuple[str, ...]:
    if isinstance(entry, LearnedKey):
        return ("key", entry.kernel, entry.key)
    if isinstance(entry, LearnedFunction):
        return ("function", entry.backend, entry.function, entry.replay or entry.label)
    raise TypeError(entry)


def _both(a: Entry, b: Entry) -> Entry:
    """Two sightings as one."""
    return replace(_merged(a, b), n=a.n + b.n)


def _merged(old: Entry, new: Entry) -> Entry:
    return replace(
        new,
        n=max(old.n, new.n),
        hosts=tuple(sorted({*old.hosts, *new.hosts})),
        targets=tuple(sorted({*old.targets, *new.targets})),
        first=min(old.first, new.first),
        last=max(old.last, new.last),
    )


def _events(log: Path) -> Iterator[dict[str, Any]]:
    try:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"config"' in line or '"run_start"' in line:
                yield json.loads(line)
    except (OSError, ValueError):
        return
