"""What the ranks of an engine do about one tuned artifact, decided by each from what all have said. Pure: no I/O.

Every rank sees the same list and runs the same function, so there is no leader that could be gone. Ranks whose fingerprints
agree are equal, and must end with the same bytes or with none: a rank with other tactics than its neighbour's launches another
sequence of kernels, and the next collective between them hangs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jitwarm.contract.kernel import Outcome

Ending = tuple[str, str]  # an outcome's value, and why


class Group(Protocol):
    """The ranks of one engine, as far as they can talk to one another.

    Each call is made by every rank, in the same order.

    Attributes:
        size: Number of ranks.
        rank: Of this process, 0 to `size` - 1.
    """

    size: int
    rank: int

    def all_gather(self, text: str) -> list[str]:
        """The text of every rank, in the order of ranks. Raises `GroupError`: one is gone, or late."""

    def broadcast(self, data: bytes | None, source: int) -> bytes:
        """The bytes of the rank `source`; the others give None. Raises `GroupError`, as above."""


class Alone:
    """A group of one: this process."""

    size = 1
    rank = 0

    def all_gather(self, text: str) -> list[str]:
        """This process's own text."""
        return [text]

    def broadcast(self, data: bytes | None, source: int) -> bytes:
        """This process's own bytes."""
        del source
        return data or b""


@dataclass(frozen=True)
class Standing:
    """Where one rank stands with one artifact.

    Attributes:
        fingerprint: The name that its result has in a store; equal ranks have the same.
        sha256: Of the whole result that it holds; empty where it holds none.
        cannot_tune: Why it cannot tune; empty where it can.
        is_collective: Whether tuning takes every rank.
        problem: How and why the artifact ends on this rank, whatever the others hold; None where nothing is wrong.
    """

    fingerprint: str = ""
    sha256: str = ""
    cannot_tune: str = ""
    is_collective: bool = False
    problem: Ending | None = None


@dataclass(frozen=True)
class Equals:
    """Ranks that must end with the same bytes, and where these come from.

    Attributes:
        members: Ascending.
        source: Whose bytes count; None where nobody has any, or can find them.
        tunes: Whether `source` has yet to find them.
        sends: Whether some member does not hold the bytes of `source`.
        reason: Why there is no source.
    """

    members: tuple[int, ...]
    source: int | None
    tunes: bool = False
    sends: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Agreement:
    """What is done about one artifact.

    Attributes:
        groups: The groups of equal ranks, by lowest member.
        refusal: How the artifact ends on every rank, where nothing is applied anywhere.
        is_collective: Whether those that tune do so together.
    """

    groups: tuple[Equals, ...] = ()
    refusal: Ending | None = None
    is_collective: bool = False

    @property
    def tuners(self) -> frozenset[int]:
        """The ranks that call `tune`."""
        tuning = [group for group in self.groups if group.tunes]
        if self.is_collective:
            return frozenset(rank for group in tuning for rank in group.members)
        return frozenset(group.source for group in tuning if group.source is not None)

    def of(self, rank: int) -> Equals | None:
        """The group of a rank; None where the rank does not have the artifact."""
        return next((group for group in self.groups if rank in group.members), None)

    def senders(self, group: Equals) -> tuple[int, ...]:
        """Whose bytes all members of a group must get, in this order."""
        if group.tunes:
            from_all = group.members if self.is_collective else (group.source or 0,)
            return from_all if len(group.members) > 1 else ()
        return (group.source,) if group.sends and group.source is not None else ()


def decide(standings: Sequence[Standing | None]) -> Agreement:
    """What is done about one artifact.

    Args:
        standings: Of every rank, by rank; None where a rank does not have the artifact, and nothing is wrong with that.
    """
    present = {rank: standing for rank, standing in enumerate(standings) if standing is not None}
    for rank, standing in present.items():
        if standing.problem:
            outcome, why = standing.problem
            return Agreement(refusal=(outcome, _told(rank, why, len(standings))))
    if len({standing.is_collective for standing in present.values()}) > 1:
        return Agreement(refusal=(Outcome.FAILED.value, "some ranks tune together, and some alone: versions differ"))
    is_collective = any(standing.is_collective for standing in present.values())
    groups = tuple(_equals(members, present) for members in _by_fingerprint(present))
    if is_collective and any(group.tunes for group in groups):
        groups = _together(groups, present, len(standings))
    return Agreement(groups, is_collective=is_collective)


def _by_fingerprint(present: dict[int, Standing]) -> list[tuple[int, ...]]:
    """Ranks with the same fingerprint, by lowest rank."""
    found: dict[str, list[int]] = {}
    for rank in sorted(present):
        found.setdefault(present[rank].fingerprint, []).append(rank)
    return [tuple(ranks) for ranks in found.values()]


def _equals(members: tuple[int, ...], present: dict[int, Standing]) -> Equals:
    """The lowest rank that holds a result gives it to all; where nobody does, the lowest rank that can finds it."""
    holders = [rank for rank in members if present[rank].sha256]
    if holders:
        source = holders[0]
        sends = any(present[rank].sha256 != present[source].sha256 for rank in members)
        return Equals(members, source, sends=sends)
    tuners = [rank for rank in members if not present[rank].cannot_tune]
    if tuners:
        return Equals(members, tuners[0], tunes=True)
    return Equals(members, None, reason=present[members[0]].cannot_tune)


def _together(groups: tuple[Equals, ...], present: dict[int, Standing], size: int) -> tuple[Equals, ...]:
    """Collective tuning takes every rank, also those of a group that holds a result already; or nobody tunes."""
    idle = [rank for rank in range(size) if rank not in present]
    unable = [rank for rank, standing in present.items() if standing.cannot_tune]
    if not idle and not unable:
        return tuple(Equals(group.members, group.members[0], tunes=True) for group in groups)
    why = f"rank {idle[0]} does not have it" if idle else _told(unable[0], present[unable[0]].cannot_tune, size)
    reason = f"every rank must take part in this tuning: {why}" if size > 1 else why
    return tuple(Equals(group.members, None, reason=reason) if group.tunes else group for group in groups)


def _told(rank: int, why: str, size: int) -> str:
    return f"rank {rank}: {why}" if size > 1 else why
