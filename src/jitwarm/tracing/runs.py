"""Sets of residues as runs: ascending half-open intervals within one period, none touching the next.

What a dispatch asks modulo 16,896 (`cdiv(m, 128) % 132`) has some hundred runs, and most questions about them cost that.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache

Runs = tuple[tuple[int, int], ...]

# Beyond, residues are not followed: the number of runs is the cost of a question, and that of all numbers bounds what is listed.
MAX_RUNS = 32_768


def n_in(runs: Runs) -> int:
    """How many residues there are."""
    return sum(stop - start for start, stop in runs)


def holds(runs: Runs, residue: int) -> bool:
    """Whether a residue is in one of the runs."""
    place = bisect_right(runs, (residue, math.inf)) - 1
    return place >= 0 and residue < runs[place][1]


def following(runs: Runs, modulus: int, position: int) -> int:
    """The smallest position from `position` on whose residue is in the runs, of which there is at least one."""
    period, residue = divmod(position, modulus)
    place = bisect_right(runs, (residue, math.inf)) - 1
    if place >= 0 and residue < runs[place][1]:
        return position
    if place + 1 < len(runs):
        return period * modulus + runs[place + 1][0]
    return (period + 1) * modulus + runs[0][0]


def preceding(runs: Runs, modulus: int, position: int) -> int:
    """The largest position up to `position` whose residue is in the runs, of which there is at least one."""
    period, residue = divmod(position, modulus)
    place = bisect_right(runs, (residue, math.inf)) - 1
    if place >= 0:
        return min(position, period * modulus + runs[place][1] - 1)
    return (period - 1) * modulus + runs[-1][1] - 1


def members(runs: Runs, modulus: int, lo: int, hi: int) -> Iterator[int]:
    """All positions in `lo..hi` whose residue is in the runs, ascending."""
    for base in range(lo - lo % modulus, hi + 1, modulus):
        for start, stop in runs:
            yield from range(max(lo, base + start), min(hi + 1, base + stop))


def complement(runs: Runs, modulus: int) -> Runs:
    """The residues that are not in the runs."""
    edges = [0, *(edge for run in runs for edge in run), modulus]
    return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)


def of_residues(residues: Iterator[int]) -> Runs:
    """Runs of single residues, given ascending."""
    found: list[tuple[int, int]] = []
    for residue in residues:
        _append(found, residue, residue + 1)
    return tuple(found)


def stretched(runs: Runs, modulus: int, factor: int) -> Runs:
    """The same positions, as residues of `factor * modulus`."""
    found: list[tuple[int, int]] = []
    for base in range(0, modulus * factor, modulus):
        for start, stop in runs:
            _append(found, base + start, base + stop)
    return tuple(found)


@lru_cache(maxsize=4096)
def common(m: int, own: Runs | None, n: int, other: Runs) -> Runs:
    """The residues modulo lcm(m, n) that fit both conditions. Each question is asked once per box, so answers are kept.

    Raises:
        OverflowError: They have more than `MAX_RUNS` runs.
    """
    modulus = math.lcm(m, n)
    if len(other) * (modulus // n) + len(own or ()) * (modulus // m) > MAX_RUNS:
        raise OverflowError(modulus)
    wide = stretched(other, n, modulus // n)
    return wide if own is None else _intersection(stretched(own, m, modulus // m), wide)


def _intersection(a: Runs, b: Runs) -> Runs:
    found: list[tuple[int, int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, stop = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < stop:
            found.append((start, stop))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(found)


def _append(runs: list[tuple[int, int]], start: int, stop: int) -> None:
    if runs and runs[-1][1] == start:
        runs[-1] = (runs[-1][0], stop)
    else:
        runs.append((start, stop))
