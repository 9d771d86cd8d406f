"""The result of a check of a plugin: one row per promise of the contract."""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self
from unittest import SkipTest

from jitwarm.errors import PluginCheckError


class Status(enum.Enum):
    """How a check ended. `warned` costs time or comfort, and `skipped` says nothing about the plugin."""

    PASSED = "passed"
    WARNED = "warned"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """One promise of the contract, and whether the plugin keeps it.

    Attributes:
        name: e.g. `"keys_are_stable"`.
        status: How the check ended.
        detail: What was seen; for a plugin that breaks the promise: what, where and why.
        hint: What to do; empty where there is nothing to do.
        promise: The promise, one sentence.
    """

    name: str
    status: Status
    detail: str = ""
    hint: str = ""
    promise: str = ""

    def __str__(self) -> str:
        lines = [f"{self.status.value:7} {self.name}", *(f"        {line}" for line in self.detail.splitlines())]
        return "\n".join(lines + ([f"        -> {self.hint}"] if self.hint else []))

    def require(self) -> None:
        """Raise unless the promise is kept; a warning is no failure.

        Raises:
            PluginCheckError: It is not kept.
            unittest.SkipTest: It was not checked; pytest and unittest show the reason.
        """
        if self.status is Status.FAILED:
            raise PluginCheckError(f"{self.name}: {self.detail}", self.hint)
        if self.status is Status.SKIPPED:
            raise SkipTest(self.detail)


@dataclass(frozen=True)
class CheckList:
    """What was found out about one plugin. Prints as a table; iterates over its `checks`.

    Attributes:
        plugin: Its name.
        target: What its keys were built for.
        checks: In the order in which they were made.
    """

    plugin: str
    target: str
    checks: tuple[Check, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no check failed."""
        return not self.of(Status.FAILED)

    def of(self, *statuses: Status) -> list[Check]:
        """The checks that ended so."""
        return [check for check in self.checks if check.status in statuses]

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, name: str) -> Check:
        """The check of a name."""
        return next(check for check in self.checks if check.name == name)

    def require(self, *, strict: bool = False) -> Self:
        """Raise if a check failed; strict: also if one warned or was skipped.

        Returns:
            This list, so that a test is one line: `check_plugin("acme").require()`.

        Raises:
            PluginCheckError: Once, with every such check and what to do about it.
        """
        wrong = self.of(Status.FAILED, *((Status.WARNED, Status.SKIPPED) if strict else ()))
        if wrong:
            raise PluginCheckError(f"plugin {self.plugin} breaks its contract\n" + "\n".join(map(str, wrong)))
        return self

    def __str__(self) -> str:
        return "\n".join([f"{self.plugin} for {self.target}: {self._verdict()}", *map(str, self.checks)])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "plugin": self.plugin,
            "target": self.target,
            "is_sound": self.is_sound,
            "checks": [
                {"name": c.name, "status": c.status.value, "detail": c.detail, "hint": c.hint} for c in self.checks
            ],
        }

    def _verdict(self) -> str:
        counts = {status: len(self.of(status)) for status in Status}
        return ", ".join(f"{n} {status.value}" for status, n in counts.items() if n)


def first_few(texts: Sequence[str], n: int = 5) -> str:
    """The first of several findings, one line each, and how many more there are."""
    more = [f"and {len(texts) - n} more"] if len(texts) > n else []
    return "\n".join([*texts[:n], *more])


def counted(n: int, what: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
