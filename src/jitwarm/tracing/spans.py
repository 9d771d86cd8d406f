"""Spans: which positions of one axis are still meant.

An axis is the positions 0 .. n-1 of an input's values. A span is an interval of them, perhaps with only some residues of a
modulus. Its ends always are members, so a span of one member has equal ends.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from jitwarm.tracing import runs
from jitwarm.tracing.runs import Runs


@dataclass(frozen=True)
class Span:
    """Positions `lo..hi`, both included and both members, whose residue modulo `modulus` is in `residues` (None: all)."""

    lo: int
    hi: int
    modulus: int = 1
    residues: Runs | None = None

    @property
    def is_point(self) -> bool:
        """Whether there is one member."""
        return self.lo == self.hi

    def __contains__(self, position: int) -> bool:
        inside = self.lo <= position <= self.hi
        return inside and (self.residues is None or runs.holds(self.residues, position % self.modulus))

    def members(self) -> Iterator[int]:
        """All members, ascending."""
        if self.residues is None:
            return iter(range(self.lo, self.hi + 1))
        return runs.members(self.residues, self.modulus, self.lo, self.hi)

    def count(self) -> int:
        """Number of members, at most: exact where all residues are in, else rounded up to whole periods."""
        length = self.hi - self.lo + 1
        if self.residues is None:
            return length
        return min(length, (length // self.modulus + 1) * runs.n_in(self.residues))

    def clip(self, lo: int, hi: int) -> "Span | None":
        """The part within `lo..hi`; None if it has no member."""
        lo, hi = max(lo, self.lo), min(hi, self.hi)
        if self.residues is not None and lo <= hi:
            lo = runs.following(self.residues, self.modulus, lo)
            hi = runs.preceding(self.residues, self.modulus, hi)
        return Span(lo, hi, self.modulus, self.residues) if lo <= hi else None

    def refine(self, modulus: int, residues: Runs) -> "Span | None":
        """The part whose residue modulo `modulus` is in `residues`; None if it has no member.

        Raises:
            OverflowError: The residues of both conditions together have too many runs.
        """
        common = math.lcm(self.modulus, modulus)
        kept = runs.common(self.modulus, self.residues, modulus, residues)
        if not kept:
            return None
        whole = Span(self.lo, self.hi, common, None if kept == ((0, common),) else kept)
        return whole.clip(self.lo, self.hi)
