"""What a start has made warm, as the monitor needs it to explain what compiles all the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitwarm.contract.kernel import Outcome, RegisteredKernel


@dataclass(frozen=True)
class ExpectedKey:
    """One planned key and how it ended.

    Attributes:
        digest: Names it everywhere.
        label: The key for people.
        key: The object itself.
        outcome: Of the row; None where the run never came to it.
        error: Of the row.
    """

    digest: str
    label: str
    key: Any
    outcome: str | None = None
    error: str | None = None

    @property
    def is_warm(self) -> bool:
        """Whether a launch of it should compile nothing."""
        return self.outcome is not None and Outcome(self.outcome).is_warm


@dataclass(frozen=True)
class ExpectedKernel:
    """One kernel and its planned keys.

    Attributes:
        record: The kernel as the registry knows it.
        keys: In the plan's order.
        domain: The inputs that its keys were traced over: for each group of rows, name -> values. Empty for a list by hand.
        problem: Why its keys could not be listed; empty where they could.
    """

    record: RegisteredKernel
    keys: tuple[ExpectedKey, ...] = ()
    domain: Sequence[Mapping[str, Sequence[Any]]] = ()
    problem: str = ""
