"""The report: a function of a run's events, for people and for machines."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jitwarm.contract.kernel import Outcome
from jitwarm.contract.tuned import BACKEND

_SHORT = 12  # digits of a digest that tell a run's keys apart


@dataclass
class Row:
    """One key, and how it ended; `outcome` is None while it is only planned. A kernel without a list has `digest=None`.

    `is_tuned`: it is a tuned artifact, and no compiler makes it.
    """

    digest: str | None
    key: str | None
    label: str
    outcome: str | None = None
    seconds: float = 0.0
    error: str | None = None
    is_tuned: bool = False


@dataclass
class KernelReport:
    """The rows of one kernel."""

    id: str
    backend: str | None
    distribution: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What one run found and did.

    Attributes:
        target: e.g. `cuda:90`.
        root: The store.
        on_device: Whether keys were also loaded on a GPU, rather than only built for one.
        kernels: By kernel id, in the order of the plan.
        refused: Plugins that were left out, with `plugin`, `distribution`, `reason`.
        policy_errors: Policies that raised, with `plugin`, `hook`, `error`.
        left_out: Plugins that JITWARM_PLUGINS or JITWARM_DISABLE kept from being loaded.
        n_compiles: Real compiler runs that were counted.
    """

    target: str = ""
    root: str = ""
    on_device: bool = False
    kernels: dict[str, KernelReport] = field(default_factory=dict)
    refused: list[dict[str, str]] = field(default_factory=list)
    policy_errors: list[dict[str, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    n_compiles: int = 0
    seconds: float = 0.0

    @property
    def rows(self) -> list[Row]:
        """All rows, kernel by kernel."""
        return [row for kernel in self.kernels.values() for row in kernel.rows]

    @property
    def n_keys(self) -> int:
        """Number of keys, without the rows of kernels that could not list theirs."""
        return sum(row.digest is not None for row in self.rows)

    @property
    def outcomes(self) -> dict[str, int]:
        """How many rows ended in each way; outcomes that did not occur are left out."""
        counts = Counter(row.outcome for row in self.rows if row.outcome)
        return {outcome.value: counts[outcome.value] for outcome in Outcome if counts[outcome.value]}

    def is_complete(self, *, strict: bool = False) -> bool:
        """Whether every planned key is warm, and there was at least one; strict: nothing skipped and no plugin refused."""
        fine = {outcome.value for outcome in Outcome if outcome.is_warm} | (
            set() if strict else {Outcome.SKIPPED.value}
        )
        warm = all(row.outcome in fine for row in self.rows) and self.n_keys > 0
        return warm and not (strict and (self.refused or self.policy_errors))

    def repro(self, row: Row) -> str:
        """The command that builds a row's key alone; empty where the compiler was not at fault."""
        blamed = (Outcome.FAILED.value, Outcome.TIMED_OUT.value)
        if row.digest is None or row.is_tuned or row.outcome not in blamed:
            return ""
        return f"jitwarm repro {row.digest[:_SHORT]} --root {shlex.quote(self.root)}"

    def to_json(self) -> dict[str, Any]:
        """The documented document; plain data."""
        return {
            "target": self.target,
            "n_keys": self.n_keys,
            "outcomes": self.outcomes,
            "kernels": [
                {
                    "id": kernel.id,
                    "backend": kernel.backend,
                    "distribution": kernel.distribution,
                    "notes": kernel.notes,
                    "keys": [
                        {
                            "digest": row.digest,
                            "key": row.key,
                            "label": row.label,
                            "outcome": row.outcome,
                            "seconds": row.seconds,
                            "error": row.error,
                            "repro": self.repro(row) or None,
                        }
                        for row in kernel.rows
                    ],
                }
                for kernel in self.kernels.values()
            ],
            "refused": self.refused,
            "policy_errors": self.policy_errors,
            "left_out": self.left_out,
            "n_compiles": self.n_compiles,
            "on_device": self.on_device,
            "root": self.root,
            "seconds": self.seconds,
        }


class ReportBuilder:
    """Folds events, live or read back from a log, into a `Report`."""

    def __init__(self) -> None:
        self.report = Report()
        self._rows: dict[tuple[str, str], Row] = {}
        self._start_ns = 0
        self._built_s: dict[tuple[str, str], float] = {}

    @classmethod
    def fold(cls, events: Iterable[Mapping[str, Any]]) -> Report:
        """The report of a finished sequence of events."""
        builder = cls()
        for event in events:
            builder.add(event)
        return builder.report

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one event into account; unknown ones change nothing."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler:
            handler(event)

    def _on_run_start(self, event: Mapping[str, Any]) -> None:
        self.report.target, self.report.root, self.report.on_device = event["target"], event["root"], event["on_device"]
        self._start_ns = event["mono_ns"]

    def _on_run_end(self, event: Mapping[str, Any]) -> None:
        self.report.seconds = round((event["mono_ns"] - self._start_ns) / 1e9, 3)

    def _on_plugin_refused(self, event: Mapping[str, Any]) -> None:
        self.report.refused.append({name: event[name] for name in ("plugin", "distribution", "reason")})

    def _on_plugins_left_out(self, event: Mapping[str, Any]) -> None:
        self.report.left_out = list(event["plugins"])

    def _on_policy_error(self, event: Mapping[str, Any]) -> None:
        self.report.policy_errors.append({name: event[name] for name in ("plugin", "hook", "error")})

    def _on_kernel_planned(self, event: Mapping[str, Any]) -> None:
        self.report.kernels[event["kernel"]] = KernelReport(
            event["kernel"], event["backend"], event["distribution"], notes=list(event["notes"])
        )

    def _on_key_planned(self, event: Mapping[str, Any]) -> None:
        kernel = self.report.kernels[event["kernel"]]
        row = Row(event["digest"], event["key"], event["label"], is_tuned=kernel.backend == BACKEND)
        self._rows[event["kernel"], event["digest"]] = row
        kernel.rows.append(row)

    def _on_kernel_unlisted(self, event: Mapping[str, Any]) -> None:
        row = Row(None, None, "(keys could not be listed)", event["outcome"], error=event["error"])
        self.report.kernels[event["kernel"]].rows.append(row)

    def _on_key_end(self, event: Mapping[str, Any]) -> None:
        row = self._rows[event["kernel"], event["digest"]]
        row.outcome, row.error = event["outcome"], event["error"]
        # What was built ahead, elsewhere, took longer than the load that ends here.
        row.seconds = max(event["seconds"], self._built_s.pop((event["kernel"], row.key or ""), 0.0))

    def _on_compile(self, event: Mapping[str, Any]) -> None:
        self.report.n_compiles += event["n"]

    def _on_built_in_child(self, event: Mapping[str, Any]) -> None:
        self.report.n_compiles += event["n"]
        self._built_s[event["kernel"], event["key"]] = event["seconds"]
