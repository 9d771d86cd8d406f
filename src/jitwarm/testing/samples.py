"""Points of a traced domain at which the author's own function is asked again, without any tracing."""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from jitwarm.contract.keys import encode_key, format_key
from jitwarm.errors import TracingError
from jitwarm.tracing import Trace
from jitwarm.tracing.domain import Domain

_SEED = 0
_OUTSIDE = ""  # in place of a key text, where a point is outside the domain


def disagreements(trace: Trace, n_points: int) -> list[str]:
    """What the author's function answers that tracing did not find, and what tracing found that it does not answer.

    Args:
        trace: What was found.
        n_points: How many points to try at most; a smaller domain is tried whole. Half of them lie at the edges of regions.

    Returns:
        One sentence each; empty where both agree.
    """
    traced = [encode_key(key) for key in trace.keys]
    found: dict[str, str] = {}
    for index, text in enumerate(traced):
        answer, label = _ask(trace, trace.witness(index))
        if answer != text:
            expected = f"[{format_key(trace.keys[index])}]"
            found[text] = f"{_shown(trace.witness(index))} was traced to {expected}, and now gives {label}"
    known = {*traced, _OUTSIDE}
    for point in points(trace, n_points):
        answer, label = _ask(trace, point)
        if answer not in known:
            found.setdefault(answer, f"{_shown(point)} gives {label}, which was not traced")
    return list(found.values())


def points(trace: Trace, n_points: int) -> Iterator[Mapping[str, Any]]:
    """Points of a trace's domain, the same in every run."""
    domain = Domain(trace.domain)
    if domain.n_points <= n_points:
        yield from domain.points()
        return
    chance = random.Random(_SEED)  # noqa: S311 - not for secrets
    edges = _edges(trace)
    boxes = domain.boxes
    weights = [math.prod(map(len, box.values())) for box in boxes]
    for n in range(n_points):
        # Edges in each box in turn, for a small one may hold as many mistakes as a large one; then anywhere.
        n_box = n // 2 % len(boxes) if n % 2 else chance.choices(range(len(boxes)), weights)[0]
        yield {
            name: values[chance.choice(edges[n_box][name]) if n % 2 else chance.randrange(len(values))]
            for name, values in boxes[n_box].items()
        }


def _edges(trace: Trace) -> list[dict[str, list[int]]]:
    """For each box and input the positions at which a region begins or ends, and their neighbours."""
    found: list[dict[str, set[int]]] = [
        {name: {0, len(values) - 1} for name, values in box.items()} for box in trace.domain
    ]
    for region in trace.regions:
        for name, (values, span) in region.inputs.items():
            near = itertools.chain(range(span.lo - 1, span.lo + 2), range(span.hi - 1, span.hi + 2))
            found[region.rank[0]][name].update(at for at in near if 0 <= at < len(values))
    return [{name: sorted(positions) for name, positions in box.items()} for box in found]


def _ask(trace: Trace, point: Mapping[str, Any]) -> tuple[str, str]:
    """What the author's function says at a point: the key's text, and the key for people."""
    try:
        key = trace.key_at(point)
    except TracingError as exc:
        return exc.message, f"an error: {exc.message}"
    return (_OUTSIDE, "no key") if key is None else (encode_key(key), f"[{format_key(key)}]")


def _shown(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in point.items())
