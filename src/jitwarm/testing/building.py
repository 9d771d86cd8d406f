"""Build one plugin's keys through a real session, and note what its compiles did besides."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from jitwarm.contract.target import Target
from jitwarm.engine.plan import Plan
from jitwarm.environment import CACHE_VARIABLES
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings, read_config
from jitwarm.testing.facts import Built, BuiltKey, Order
from jitwarm.testing.launches import watched_launches


def build(order: Order) -> Built:
    """One run over the plugin's keys.

    Raises:
        JitwarmError: It could not begin.
    """
    seen = Built()
    settings = Settings(
        plugins=(order.plugin, *order.needs),
        isolate=order.isolate,
        max_keys=order.max_keys,
        plan_timeout_s=order.timeout_s,
    )
    asked = Asked(read_config(order.config), settings)
    notes = _Notes(seen)
    with watched_launches(seen.touches.append):
        session = Session(asked, Target.parse(order.target), root=Path(order.root), listeners=[notes.add])
        try:
            plan = session.plan(order.kernels, will_run=order.isolate)
            report = session.run(_without(plan, order))
        finally:
            session.finish()
    for kernel in report.kernels.values():
        for row in kernel.rows:
            seen.keys.append(BuiltKey(kernel.id, row.key or "", row.label, row.outcome or "", row.error or ""))
    return seen


def _without(plan: Plan, order: Order) -> Plan:
    """The plan's kernels that belong to the plugin, without the keys that are left out."""
    kernels = [
        dataclasses.replace(
            kernel, keys=tuple(key for key in kernel.keys if (kernel.id, key.text) not in order.leave_out)
        )
        for kernel in plan.kernels
        if kernel.id.startswith(f"{order.plugin}:")
    ]
    return Plan(plan.target, tuple(kernels))


class _Notes:
    """Takes from the events of a run what the report does not tell."""

    def __init__(self, seen: Built) -> None:
        self._seen = seen
        self._before = Surroundings.now()

    def add(self, event: Mapping[str, Any]) -> None:
        """Listen to one event."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler:
            handler(event)

    def _on_compile(self, event: Mapping[str, Any]) -> None:
        self._seen.compiled.append((event["kernel"], event["key"]))

    _on_built_in_child = _on_compile

    def _on_quarantined(self, event: Mapping[str, Any]) -> None:
        self._seen.quarantined.append((event["kernel"], event["key"]))

    def _on_local(self, event: Mapping[str, Any]) -> None:
        self._seen.local[event["kernel"]] = event["why"]

    def _on_isolation_unavailable(self, event: Mapping[str, Any]) -> None:
        self._seen.unavailable = event["error"]

    def _on_key_start(self, event: Mapping[str, Any]) -> None:
        self._label = f"{event['kernel']} [{event['label']}]"
        self._before = Surroundings.now()

    def _on_key_end(self, event: Mapping[str, Any]) -> None:
        del event
        changes = self._before.changes(Surroundings.now())
        self._seen.changes += [f"{self._label}: {change}" for change in changes]


@dataclass(frozen=True)
class Surroundings:
    """What of a process whoever compiles next depends on."""

    directory: str
    umask: int
    environ: Mapping[str, str]

    @classmethod
    def now(cls) -> Self:
        """Of this process."""
        umask = os.umask(0)
        os.umask(umask)
        try:
            directory = os.getcwd()  # noqa: PTH109 - Path.cwd() is the same call
        except FileNotFoundError:
            directory = "(a directory that was removed)"
        return cls(directory, umask, dict(os.environ))

    def changes(self, now: "Surroundings") -> Iterator[str]:
        """What is not as it was, one sentence each. What a library adds when it is imported is no change."""
        if now.directory != self.directory:
            yield f"the current directory was {self.directory} and is {now.directory}"
        if now.umask != self.umask:
            yield f"the umask was {self.umask:03o} and is {now.umask:03o}"
        for name, value in self.environ.items():
            after = now.environ.get(name)
            if after is None or not set(value.split(os.pathsep)) <= set(after.split(os.pathsep)):
                yield f"the variable {name} was {value!r} and is {after!r}"
        for name in CACHE_VARIABLES.keys() & (now.environ.keys() - self.environ.keys()):
            yield f"the variable {name} was not set and is {now.environ[name]!r}"
