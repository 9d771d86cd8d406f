"""Spans: which positions of one axis are still meant.

An axis is the positions 0 .. n-1 of an input's values. A span is an interval of them, perhaps with only some residues of a
modulus. Its ends always are members, so a span of one member has equal ends.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

MAX_MODULUS = 32_768


@dataclass(frozen=True)
class Span:
    """Positions `lo..hi`, both included and both members, whose residue modulo `modulus` is in `residues` (None: all)."""

    lo: int
    hi: int
    modulus: int = 1
    residues: frozenset[int] | None = None

    @property
    def is_point(self) -> bool:
        """Whether there is one member."""
        return self.lo == self.hi

    def __contains__(self, position: int) -> bool:
        return self.lo <= position <= self.hi and (self.residues is None or position % self.modulus in self.residues)

    def members(self) -> Iterator[int]:
        """All members, ascending."""
        return (i for i in range(self.lo, self.hi + 1) if self.residues is None or i % self.modulus in self.residues)

    def count(self) -> int:
        """Number of members, at most: exact where all residues are in, else rounded up to whole periods."""
        length = self.hi - self.lo + 1
        if self.residues is None:
            return length
        return min(length, (length // self.modulus + 1) * len(self.residues))

    def clip(self, lo: int, hi: int) -> "Span | None":
        """The part within `lo..hi`; None if it has no member."""
        lo, hi = max(lo, self.lo), min(hi, self.hi)
        if self.residues is not None:
            lo = next(
                (i for i in range(lo, min(hi, lo + self.modulus - 1) + 1) if i % self.modulus in self.residues), hi + 1
            )
            hi = next(
                (i for i in range(hi, max(lo, hi - self.modulus + 1) - 1, -1) if i % self.modulus in self.residues),
                lo - 1,
            )
        return Span(lo, hi, self.modulus, self.residues) if lo <= hi else None

    def refine(self, modulus: int, residues: frozenset[int]) -> "Span | None":
        """The part whose residue modulo `modulus` is in `residues`; None if it has no member.

        Raises:
            OverflowError: The common modulus of both conditions is too large to be listed.
        """
        common = math.lcm(self.modulus, modulus)
        if common > MAX_MODULUS:
            raise OverflowError(common)
        kept = _common_residues(self.modulus, self.residues, modulus, residues)
        if not kept:
            return None
        whole = Span(self.lo, self.hi, common, None if len(kept) == common else kept)
        return whole.clip(self.lo, self.hi)


@lru_cache(maxsize=4096)
def _common_residues(m: int, own: frozenset[int] | None, n: int, other: frozenset[int]) -> frozenset[int]:
    """The residues modulo lcm(m, n) that fit both conditions. Each question is asked once per box, so answers are kept."""
    return frozenset(r for r in range(math.lcm(m, n)) if r % n in other and (own is None or r % m in own))
