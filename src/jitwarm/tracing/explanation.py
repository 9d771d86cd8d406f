"""Regions for people: which inputs lead to a key, in as few and as plain conditions as possible.

Regions of one key that differ in one input only are merged: values of a small space are united, touching intervals joined,
residues gathered. What is left is exact: every input of the domain lies in a region of its own key.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jitwarm.contract.keys import encode_key, format_key
from jitwarm.tracing.expand import Trace
from jitwarm.tracing.runs import MAX_RUNS, complement, members, of_residues
from jitwarm.tracing.search import Region
from jitwarm.tracing.spans import Span

_MAX_LISTED = 8
# Of a key, in an event log: a start must not wait for prose.
_MAX_MERGED, _MAX_NOTED = 64, 8

# One input's condition while regions are merged: positions of a small space, or a span of a range.
Condition = frozenset[int] | Span


@dataclass(frozen=True)
class Explanation:
    """Why a key is reachable.

    Attributes:
        key: Key text.
        label: The key for people.
        regions: One sentence each, e.g. `33 <= num_tokens <= 96, top_k = 8`; together they are all inputs of the key, but for
            regions that no input may lie in.
        witness: One input that reaches the key.
    """

    key: str
    label: str
    regions: tuple[str, ...]
    witness: Mapping[str, Any]


def explain(trace: Trace, max_merged: int | None = None) -> list[Explanation]:
    """One explanation per key of a trace, in its order.

    Args:
        trace: What tracing found.
        max_merged: Leave the regions of a key as they are where there are more; merging takes time by their square.
    """
    of_key: list[list[Region]] = [[] for _ in trace.keys]
    for region in trace.regions:
        of_key[region.key].append(region)
    found = []
    for key, regions in zip(trace.keys, of_key, strict=True):
        merged = _merged(regions, is_final=max_merged is not None and len(regions) > max_merged)
        texts = tuple(dict.fromkeys(_sentence(*parts) for parts in merged))
        witness = min(regions, key=lambda region: region.rank).witness
        found.append(Explanation(encode_key(key), format_key(key), texts, witness))
    return found


def explanation_of(text: str, label: str, explanations: Mapping[str, Explanation]) -> Explanation | None:
    """The explanation of a key, by key text.

    A tuned key is the author's key and a configuration: the first decides how it is reached.
    """
    return explanations.get(text) or next((e for e in explanations.values() if label.startswith(e.label)), None)


def noted(keys: Iterable[tuple[str, str]], traces: Iterable[Trace]) -> Iterator[dict[str, Any]]:
    """What an event log says of how keys are reached: the first regions, how many there are, and one input.

    Args:
        keys: Text and label of each.
        traces: Of the kernel whose keys they are; a key that is in none was listed by hand, and has no region.
    """
    explanations = {e.key: e for trace in traces for e in explain(trace, _MAX_MERGED)}
    for text, label in keys:
        found = explanation_of(text, label, explanations)
        yield {
            "regions": list(found.regions[:_MAX_NOTED]) if found else [],
            "n": len(found.regions) if found else 0,
            "witness": {name: repr(value) for name, value in found.witness.items()} if found else {},
        }


def _merged(
    regions: Sequence[Region], *, is_final: bool = False
) -> list[tuple[Mapping[str, Sequence[Any]], dict[str, Condition], tuple[str, ...]]]:
    """Regions with as few as possible; those of different rows, or with different facts, stay apart."""
    groups: dict[Any, list[dict[str, Condition]]] = {}
    values: dict[Any, Mapping[str, Sequence[Any]]] = {}
    for region in regions:
        identity = (region.rank[0], region.facts)
        values[identity] = {name: space for name, (space, _) in region.inputs.items()}
        groups.setdefault(identity, []).append(
            {n: _condition(space, span) for n, (space, span) in region.inputs.items()}
        )
    result = []
    for identity, group in groups.items():
        while not is_final and _merge_once(group, values[identity]):
            pass
        result += [(values[identity], member, identity[1]) for member in group]
    return result


def _condition(space: Sequence[Any], span: Span) -> Condition:
    return span if isinstance(space, range) else frozenset(span.members())


def _merge_once(members: list[dict[str, Condition]], values: Mapping[str, Sequence[Any]]) -> bool:
    """Join the first two members that differ in one input and can be joined there."""
    for i, a in enumerate(members):
        for j in range(i + 1, len(members)):
            b = members[j]
            different = [name for name in values if a[name] != b[name]]
            if len(different) == 1 and (joined := _joined(a[different[0]], b[different[0]])) is not None:
                members[i] = {**a, different[0]: joined}
                del members[j]
                return True
    return False


def _joined(a: Condition, b: Condition) -> Condition | None:
    if isinstance(a, frozenset) and isinstance(b, frozenset):
        return a | b
    if isinstance(a, frozenset) or isinstance(b, frozenset):
        return None
    if (a.modulus, a.residues) == (b.modulus, b.residues):
        low, high = (a, b) if a.lo < b.lo else (b, a)
        whole = Span(low.lo, high.hi, a.modulus, a.residues)
        following = whole.clip(low.hi + 1, high.hi)
        return whole if following is not None and following.lo == high.lo else None
    return _with_more_residues(a, b)


def _with_more_residues(a: Span, b: Span) -> Span | None:
    """Two residue classes over one common interval."""
    common = math.lcm(a.modulus, b.modulus)
    if common > MAX_RUNS:
        return None
    if max(a.lo, b.lo) - min(a.lo, b.lo) >= common or max(a.hi, b.hi) - min(a.hi, b.hi) >= common:
        return None
    residues = sorted(set(_listed(a, common)) | set(_listed(b, common)))
    joined = Span(min(a.lo, b.lo), max(a.hi, b.hi), common, of_residues(iter(residues)))
    for part in (a, b):  # at the ends one class may reach further than the other
        own = Span(joined.lo, joined.hi, part.modulus, part.residues).clip(joined.lo, joined.hi)
        if own is None or (own.lo, own.hi) != (part.lo, part.hi):
            return None
    return _reduced(joined)


def _listed(span: Span, modulus: int) -> Iterator[int]:
    """The residues of a span, of a multiple of its modulus."""
    return members(span.residues or ((0, span.modulus),), span.modulus, 0, modulus - 1)


def _reduced(span: Span) -> Span:
    """The same members with the smallest modulus."""
    residues = list(_listed(span, span.modulus))
    for modulus in range(1, span.modulus):
        if span.modulus % modulus == 0:
            smaller = {r % modulus for r in residues}
            if len(smaller) * (span.modulus // modulus) == len(residues):
                kept = None if len(smaller) == modulus else of_residues(iter(sorted(smaller)))
                return Span(span.lo, span.hi, modulus, kept)
    return span


# --- text --------------------------------------------------------------------------------------------------------------


def _sentence(values: Mapping[str, Sequence[Any]], member: Mapping[str, Condition], facts: tuple[str, ...]) -> str:
    parts = [text for name, space in values.items() for text in _clauses(name, space, member[name])]
    return ", ".join([*parts, *facts]) or "any input"


def _clauses(name: str, space: Sequence[Any], condition: Condition) -> list[str]:
    if len(space) == 1:
        return []
    if isinstance(condition, Span):
        assert isinstance(space, range)  # noqa: S101 - only ranges keep their span
        return _interval(name, space, condition) + _residues(name, space, condition)
    if len(condition) == len(space):
        return []
    shown = [repr(space[position]) for position in sorted(condition)]
    return [f"{name} = {shown[0]}" if len(shown) == 1 else f"{name} in {{{', '.join(shown)}}}"]


def _interval(name: str, space: range, span: Span) -> list[str]:
    whole = Span(0, len(space) - 1, span.modulus, span.residues).clip(0, len(space) - 1)
    assert whole is not None  # noqa: S101 - the span itself lies in it
    low, high = space[span.lo], space[span.hi]
    if span.lo == span.hi:
        return [f"{name} = {low}"]
    if span.lo == whole.lo:
        return [] if span.hi == whole.hi else [f"{name} <= {high}"]
    return [f"{name} >= {low}"] if span.hi == whole.hi else [f"{low} <= {name} <= {high}"]


def _residues(name: str, space: range, span: Span) -> list[str]:
    if span.residues is None or span.lo == span.hi:
        return []
    modulus = span.modulus * space.step
    inside, outside = (
        sorted(
            (space.start + space.step * r) % modulus
            for r in islice(members(runs, span.modulus, 0, span.modulus - 1), MAX_RUNS)
        )
        for runs in (span.residues, complement(span.residues, span.modulus))
    )
    if len(inside) == 1:
        return [f"{name} % {modulus} = {inside[0]}"]
    if len(outside) == 1:
        return [f"{name} % {modulus} != {outside[0]}"]
    if len(outside) < len(inside) and len(outside) <= _MAX_LISTED:
        return [f"{name} % {modulus} not in {{{', '.join(map(str, outside))}}}"]
    shown = ", ".join(map(str, inside[:_MAX_LISTED])) + (", ..." if len(inside) > _MAX_LISTED else "")
    return [f"{name} % {modulus} in {{{shown}}}"]
