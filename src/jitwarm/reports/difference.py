"""Two starts compared: keys, outcomes, seconds, unexpected compiles, versions, environment and configuration."""

from collections.abc import Iterator, Mapping
from typing import Any

from jitwarm.reports.document import headline
from jitwarm.reports.start import Key, Start, Unexpected

FORMAT, VERSION = "jitwarm-diff", 1
# Below this a key's time is noise.
_NOISE_S = 0.05


def difference(a: Start, b: Start) -> dict[str, Any]:
    """What the second start has that the first had not, and the other way round, as the documented document."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "a": headline(a),
        "b": headline(b),
        "only_in_a": [_named(key) for name, key in a.keys.items() if name not in b.keys],
        "only_in_b": [_named(key) for name, key in b.keys.items() if name not in a.keys],
        "outcomes": _outcomes(a, b),
        "seconds": _seconds(a, b),
        "unexpected": _unexpected(a, b),
        "kernels": _kernels(a, b),
        "versions": _changed(a.versions, b.versions),
        "environment": _changed(a.environment, b.environment),
        "config": _changed(a.config, b.config),
    }


def _named(key: Key) -> dict[str, Any]:
    return {
        "kernel": key.kernel,
        "digest": key.digest,
        "label": key.label,
        "outcome": key.outcome,
        "seconds": round(key.seconds, 4),
    }


def _outcomes(a: Start, b: Start) -> list[dict[str, Any]]:
    pairs = [(a.keys[name], key) for name, key in b.keys.items() if name in a.keys]
    return [
        {
            "kernel": new.kernel,
            "digest": new.digest,
            "label": new.label,
            "a": old.outcome,
            "b": new.outcome,
            "error": new.error,
        }
        for old, new in pairs
        if old.outcome != new.outcome
    ]


def _seconds(a: Start, b: Start) -> dict[str, Any]:
    """Whole starts, and keys of both by how much they gained or lost; negative is gained."""
    changes = [(b.keys[name].seconds - key.seconds, name) for name, key in a.keys.items() if name in b.keys]
    keys = [
        {"kernel": name[0], "digest": name[1], "label": a.keys[name].label, "a": round(a.keys[name].seconds, 4),
         "b": round(b.keys[name].seconds, 4), "change": round(change, 4)}
        for change, name in sorted(changes, key=lambda pair: -abs(pair[0])) if abs(change) >= _NOISE_S
    ]  # fmt: skip
    return {"a": round(a.seconds, 4), "b": round(b.seconds, 4), "change": round(b.seconds - a.seconds, 4), "keys": keys}


def _unexpected(a: Start, b: Start) -> dict[str, Any]:
    old, new = ({_identity(found): found for found in start.unexpected} for start in (a, b))
    return {
        "only_in_a": [_compile(found) for name, found in old.items() if name not in new],
        "only_in_b": [_compile(found) for name, found in new.items() if name not in old],
        "in_both": sum(name in old for name in new),
        "seconds_lost": {"a": round(a.seconds_lost, 4), "b": round(b.seconds_lost, 4)},
    }


def _identity(found: Unexpected) -> tuple[str, ...]:
    return (found.backend, found.what, found.function, found.kernel, found.digest or found.key or found.label)


def _compile(found: Unexpected) -> dict[str, Any]:
    names = ("backend", "what", "function", "kernel", "label", "differences", "why", "line", "site", "n")
    return {**{name: getattr(found, name) for name in names}, "seconds": round(found.seconds, 4)}


def _kernels(a: Start, b: Start) -> dict[str, list[Any]]:
    """Packages of kernels that differ, and kernels that one start alone has."""
    old, new = ({name: distribution for name, _, distribution, _ in start.kernels()} for start in (a, b))
    return _changed(old, new)


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values that differ, as `[a's, b's]` by dotted path; None is one that is not there."""
    old, new = dict(_flat(a)), dict(_flat(b))
    return {name: [old.get(name), new.get(name)] for name in {**old, **new} if old.get(name) != new.get(name)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
