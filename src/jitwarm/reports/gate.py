"""The gate for continuous integration: limits that a start must keep, and the list of what breaks them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jitwarm.errors import UsageError
from jitwarm.reports.document import FORMAT, document
from jitwarm.reports.folding import read_starts
from jitwarm.reports.start import is_cold


@dataclass(frozen=True)
class Limits:
    """At most so much; None is no limit.

    Attributes:
        budget: Expected keys.
        max_cold: Keys that are not warm, kernels that could not list theirs, and unexpected compiles.
        max_never_used: Warm keys that nothing asked for.
        max_undeclared: Compiles before serving that nobody declares.
        max_seconds: Of the start.
        strict: Count skipped keys as cold, whatever the reason.
    """

    budget: int | None = None
    max_cold: int | None = None
    max_never_used: int | None = None
    max_seconds: float | None = None
    strict: bool = False
    max_undeclared: int | None = None

    @property
    def are_none(self) -> bool:
        """Whether there is nothing to check."""
        numbers = (self.budget, self.max_cold, self.max_never_used, self.max_seconds, self.max_undeclared)
        return all(limit is None for limit in numbers)


@dataclass
class Subject:
    """What is checked, whichever document it came from.

    Attributes:
        name: The run or file.
        keys: `(name, outcome, error)` of each.
        cold: Kernels that could not list their keys, and compiles after the warm-up; one line each.
        never_used: One line each; None where nobody knows.
        undeclared: Compiles before serving, one line each; None where no account was kept.
    """

    name: str
    keys: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    cold: list[str] = field(default_factory=list)
    never_used: list[str] | None = None
    undeclared: list[str] | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Breach:
    """A limit that is not kept.

    Attributes:
        limit: The option, e.g. `--max-cold`.
        allowed: The limit; None where the limit cannot be checked.
        found: What there is.
        items: What it consists of, one line each.
    """

    subject: str
    limit: str
    allowed: float | None
    found: float | None
    says: str
    items: list[str] = field(default_factory=list)


def subjects(names: Sequence[str], root: Path) -> list[Subject]:
    """What is named: runs, as for `reading.read_runs`, and JSON documents of `plan`, `warm`, `bake` and `report`.

    Raises:
        UsageError: It is neither.
    """
    found: list[Subject] = []
    for name in names or [""]:
        documents = _documents(Path(name)) if name else None
        if documents is None:
            found += [_of_report(document(start)) for start in read_starts([name] if name else [], root)]
        else:
            found += [_subject(name, item) for item in documents]
    return found


def breaches(subject: Subject, limits: Limits) -> Iterator[Breach]:
    """The limits that `subject` does not keep. A plan without keys keeps none: a plugin that was not installed is no success."""
    if not subject.keys and not subject.cold:
        yield Breach(subject.name, "keys", None, 0, "no key was planned: is the plugin installed, and not left out?")
        return
    if limits.budget is not None and len(subject.keys) > limits.budget:
        yield _over(subject, "--budget", limits.budget, len(subject.keys), "expected keys", _counted(subject))
    cold = [*_cold_keys(subject, limits), *subject.cold]
    if limits.max_cold is not None and len(cold) > limits.max_cold:
        yield _over(subject, "--max-cold", limits.max_cold, len(cold), "cold", cold)
    if limits.max_never_used is not None:
        yield from _never_used(subject, limits.max_never_used)
    if limits.max_undeclared is not None:
        yield from _undeclared(subject, limits.max_undeclared)
    if limits.max_seconds is not None and subject.seconds > limits.max_seconds:
        yield _over(subject, "--max-seconds", limits.max_seconds, round(subject.seconds, 3), "seconds", [])


def _over(subject: Subject, limit: str, allowed: float, found: float, what: str, items: list[str]) -> Breach:
    return Breach(subject.name, limit, allowed, found, f"{found:,} {what}, at most {allowed:,} are allowed", items)


def _never_used(subject: Subject, allowed: int) -> Iterator[Breach]:
    if subject.never_used is None:
        says = "whether keys were used is not known: no monitor of jitwarm was armed, or this is no event log"
        yield Breach(subject.name, "--max-never-used", allowed, None, says)
    elif len(subject.never_used) > allowed:
        items = subject.never_used
        yield _over(subject, "--max-never-used", allowed, len(items), "warm keys were never used", items)


def _undeclared(subject: Subject, allowed: int) -> Iterator[Breach]:
    if subject.undeclared is None:
        says = (
            "what was compiled before serving is not known: JITWARM_EXECUTION_WARMUP was off, or this is no log of vLLM"
        )
        yield Breach(subject.name, "--max-undeclared", allowed, None, says)
    elif len(subject.undeclared) > allowed:
        items = subject.undeclared
        yield _over(subject, "--max-undeclared", allowed, len(items), "compiles are declared by nobody", items)


def _cold_keys(subject: Subject, limits: Limits) -> list[str]:
    return [
        f"{name} {outcome or 'not reached'}" + (f": {error.splitlines()[0]}" if error else "")
        for name, outcome, error in subject.keys
        if is_cold(outcome, error, strict=limits.strict)
    ]


def _counted(subject: Subject) -> list[str]:
    """How many keys each kernel has, the most first: over budget is a question of kernels, not of keys."""
    counts: dict[str, int] = {}
    for name, _, _ in subject.keys:
        kernel = name.partition(" [")[0]
        counts[kernel] = counts.get(kernel, 0) + 1
    return [f"{n:,} {kernel}" for kernel, n in sorted(counts.items(), key=lambda item: -item[1])]


def _documents(path: Path) -> list[Any] | None:
    """The JSON documents of a file; None if it is none, but a run.

    Raises:
        UsageError: It is JSON, and no report.
    """
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
    except OSError as exc:
        raise UsageError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValueError:
        if path.suffix == ".jsonl":
            return None
        raise UsageError(
            f"{path} is neither an event log (.jsonl) nor JSON", "give a run, or what `jitwarm warm --json` printed"
        ) from None
    if isinstance(value, dict) and {"v", "event"} <= value.keys():
        return None  # a log of one line
    documents = value if isinstance(value, list) else [value]
    if not documents or not all(_is_report(item) for item in documents):
        raise UsageError(
            f"{path} is JSON, but no report",
            "reports are what `jitwarm plan`, `warm`, `bake` and `report` print with --json",
        )
    return documents


def _is_report(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("kernels"), list) and isinstance(value.get("n_keys"), int)


def _subject(name: str, value: Mapping[str, Any]) -> Subject:
    try:
        return _of_report(value, name) if value.get("format") == FORMAT else _of_run(value, name)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise UsageError(
            f"{name} is a report of another version: {exc!r}", "read it with the jitwarm that wrote it"
        ) from exc


def _of_run(value: Mapping[str, Any], name: str) -> Subject:
    """What `plan`, `warm` and `bake` print."""
    subject = Subject(f"{name} ({value['target']})", seconds=float(value["seconds"]))
    for kernel in value["kernels"]:
        for key in kernel["keys"]:
            if key["digest"] is None:
                subject.cold += _unlisted(kernel["id"], key["outcome"], key["error"])
            else:
                subject.keys.append((f"{kernel['id']} [{key['label']}]", key["outcome"], key["error"]))
    return subject


def _of_report(value: Mapping[str, Any], name: str = "") -> Subject:
    """The document of `reports.document`."""
    subject = Subject(name or value["source"], seconds=float(value["seconds"]))
    subject.keys = [(f"{key['kernel']} [{key['label']}]", key["outcome"], key["error"]) for key in value["keys"]]
    for item in value["unlisted"]:
        subject.cold += _unlisted(item["kernel"], item["outcome"], item["error"])
    subject.cold += [_compiled("unexpected", found) for found in value["unexpected"]]
    if value.get("execution") is not None:
        subject.undeclared = [_compiled("undeclared", found) for found in value["undeclared"]]
    if value["never_used"] is not None:
        subject.never_used = [f"{key['kernel']} [{key['label']}] {key['seconds']:.2f} s" for key in value["never_used"]]
    return subject


def _unlisted(kernel: str, outcome: str, error: str | None) -> list[str]:
    """A kernel that is not for this rank, or that the user switched off, has no keys to be cold."""
    first = (error or "no reason given").splitlines()[0]
    return [] if outcome == "skipped" else [f"{kernel} keys could not be listed: {first}"]


def _compiled(kind: str, found: Mapping[str, Any]) -> str:
    name = found["kernel"] or found["function"]
    why = "; ".join(found["differences"]) or found["why"]
    return f"{kind} {found['what']} of {name} [{found['label']}] {found['seconds']:.2f} s: {why}"
