"""Tuned artifacts in one run: looked up, agreed upon by the ranks, tuned where nobody has a result, applied by all or by none.

The number of messages follows from what all ranks have said in the first one, never from what only one of them knows. So a
rank where something fails still takes its part, and says so.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jitwarm.contract.backend import TargetScope
from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import Outcome
from jitwarm.contract.keys import key_digest
from jitwarm.contract.target import Target
from jitwarm.contract.tuned import BACKEND, RegisteredArtifact
from jitwarm.deadlines import Deadline, is_shutdown
from jitwarm.engine.agreement import Agreement, Ending, Equals, Group, Standing, decide
from jitwarm.engine.plan import describe_error, outcome_of
from jitwarm.errors import GroupError, PluginTimeoutError, StoreError, text_of
from jitwarm.store import Store, TunedRecord, TunedStore
from jitwarm.store.tuned import sha256

NO_DEVICE = "tuning needs a device"


@dataclass
class _Item:
    """One artifact of this process, and how far it has come."""

    record: RegisteredArtifact
    text: str = ""
    fingerprint: str = ""
    problem: Ending | None = None
    data: bytes | None = None
    stored_sha256: str = ""
    is_applied: bool = False
    tune_s: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def digest(self) -> str:
        return key_digest(self.record.id, self.text)


class Tuning:
    """The tuned artifacts of one process.

    Args:
        config: The configuration that runs.
        target: What runs it.
        store: Where results are kept.
        emit: Receives events.
        deadline: How long tuning by one rank may take.
        has_device: Whether this process has the target's GPU.
        may_tune: Whether results may be looked for, or only applied.
        reason_to_skip: Given an artifact's id, why it is left alone; empty where it is not.
    """

    def __init__(
        self,
        config: WarmupConfig,
        target: Target,
        store: TunedStore,
        emit: Callable[..., None],
        deadline: Deadline,
        *,
        has_device: bool,
        may_tune: bool = True,
        reason_to_skip: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._config, self._target, self._store = config, target, store
        self._emit, self._deadline = emit, deadline
        self._has_device, self._may_tune, self._reason_to_skip = has_device, may_tune, reason_to_skip
        self._items: dict[str, _Item] = {}
        self._absent = {"*": "its warm-up has failed before it had a plan"}

    def plan(self, artifacts: Sequence[RegisteredArtifact], absent: Mapping[str, str]) -> None:
        """Take these on, and emit a row for each.

        Args:
            artifacts: Those of this process.
            absent: Plugins that could not say which artifacts they have, and why; theirs are applied by no rank.
        """
        self._absent = dict(absent)
        self._items = {record.id: self._planned(record) for record in artifacts}

    def run(self, meet: Callable[[], Group]) -> None:
        """Have every artifact applied by all equal ranks, or by none.

        Every rank calls this once, whatever it has planned. What fails is a row.

        Args:
            meet: Finds the other ranks. May raise `GroupError`.
        """
        waiting = dict(self._items)
        try:
            with TargetScope(self._target):
                for item in waiting.values():
                    self._look_up(item)
                group = meet()
                for artifact, standings in self._told(group).items():
                    self._settle(artifact, standings, group)
                    waiting.pop(artifact, None)
        except GroupError as exc:
            for item in waiting.values():
                why = f"the ranks could not agree: {describe_error(exc)}"
                self._end(item, Outcome.FAILED, why + self._taken_back(item))

    def _planned(self, record: RegisteredArtifact) -> _Item:
        item = _Item(record)
        self._emit(
            "kernel_planned",
            kernel=record.id,
            backend=BACKEND,
            distribution=record.distribution,
            import_path="",
            notes=[],
        )
        try:
            item.text = record.fingerprint(self._config)
        except (Exception, SystemExit) as exc:
            if is_shutdown(exc):
                raise
            item.problem = (outcome_of(exc).value, describe_error(exc))
            self._emit("kernel_unlisted", kernel=record.id, outcome=item.problem[0], error=item.problem[1])
            return item
        item.fingerprint = Store.fingerprint(BACKEND, record.id, item.text, str(self._target), record.toolchain)
        self._emit("key_planned", kernel=record.id, digest=item.digest, key=item.text, label="tuned result")
        if why := self._reason_to_skip(record.id):
            item.problem = (Outcome.SKIPPED.value, why)
        return item

    def _look_up(self, item: _Item) -> None:
        if item.problem:
            return
        self._emit("key_start", kernel=item.record.id, digest=item.digest, label="tuned result")
        item.started = time.monotonic()
        item.data, damaged = self._store.find(item.fingerprint)
        item.stored_sha256 = sha256(item.data) if item.data is not None else ""
        if damaged:
            self._emit("entry_damaged", kernel=item.record.id, key=item.text, why=[damaged])

    def _standing(self, item: _Item) -> Standing:
        return Standing(
            item.fingerprint, item.stored_sha256, self._cannot_tune(item), item.record.is_collective, item.problem
        )

    def _cannot_tune(self, item: _Item) -> str:
        if not self._may_tune:
            return "nothing is kept, and JITWARM_TUNE is only-apply"
        return "" if self._can_run(item) else NO_DEVICE

    def _can_run(self, item: _Item) -> bool:
        return self._has_device or not item.record.needs_device

    def _told(self, group: Group) -> dict[str, list[Standing | None]]:
        """Where every rank stands, by artifact, in an order that is the same on all ranks."""
        own = {artifact: dataclasses.asdict(self._standing(item)) for artifact, item in self._items.items()}
        told = _gathered(group, {"standings": own, "absent": self._absent})
        ids = sorted({artifact for one in told for artifact in one["standings"]})
        return {artifact: [_of_rank(one, artifact) for one in told] for artifact in ids}

    def _settle(self, artifact: str, standings: Sequence[Standing | None], group: Group) -> None:
        """Do what was agreed upon for one artifact, together with the other ranks."""
        agreement, item = decide(standings), self._items.get(artifact)
        if agreement.refusal:
            self._end(item, Outcome(agreement.refusal[0]), agreement.refusal[1])
            return
        own = agreement.of(group.rank)
        failures = self._tune_together(item, agreement, group)
        received = [self._shared(item, equals, agreement, failures, group) for equals in agreement.groups]
        data = next((data for equals, data in zip(agreement.groups, received, strict=True) if equals is own), None)
        why = self._merged_and_applied(item, agreement, own, data)
        answers = _gathered(group, why)
        if item is None or own is None:
            return
        if own.source is None:
            self._end(item, Outcome.UNRESOLVED, own.reason)
        elif failed := _first(failures, own.members):
            self._end(item, Outcome(failed[0]), failed[1])
        else:
            self._conclude(item, own, answers, group.rank)

    def _tune_together(self, item: _Item | None, agreement: Agreement, group: Group) -> list[Ending | None]:
        """Tune, if it is this rank's part; how tuning failed on each rank."""
        if not agreement.tuners:
            return [None] * group.size
        failure = self._tuned(item) if item and group.rank in agreement.tuners else None
        return [
            (outcome, f"rank {rank}: {why}" if group.size > 1 else why) if outcome else None
            for rank, (outcome, why) in enumerate(_gathered(group, failure or ("", "")))
        ]

    def _tuned(self, item: _Item) -> Ending | None:
        """Find the result here; how that failed."""
        self._emit("tune_start", kernel=item.record.id, digest=item.digest)
        start, failure = time.monotonic(), None
        try:
            if item.record.is_collective:  # its collectives must not go on beside what this thread does next
                item.data = item.record.tune(self._config)
            else:
                item.data = self._deadline.call(f"tuning {item.record.id}", item.record.tune, self._config)
        except (Exception, SystemExit) as exc:
            if is_shutdown(exc):
                raise
            late = isinstance(exc, PluginTimeoutError)
            failure = ((Outcome.TIMED_OUT if late else outcome_of(exc)).value, f"not tuned: {describe_error(exc)}")
        item.tune_s = round(time.monotonic() - start, 4)
        error = failure[1] if failure else None
        n_bytes = None if item.data is None else len(item.data)
        self._emit(
            "tune_end", kernel=item.record.id, digest=item.digest, seconds=item.tune_s, n_bytes=n_bytes, error=error
        )
        return failure

    def _shared(
        self, item: _Item | None, equals: Equals, agreement: Agreement, failures: Sequence[Ending | None], group: Group
    ) -> list[bytes]:
        """The results that count for a group of equal ranks; every rank takes part, only members look at them."""
        if _first(failures, equals.members):
            return []
        own = (item.data or b"") if item else b""
        senders = agreement.senders(equals)
        received = [group.broadcast(own if group.rank == rank else None, rank) for rank in senders]
        return received if senders else [own]

    def _merged_and_applied(
        self, item: _Item | None, agreement: Agreement, own: Equals | None, received: list[bytes] | None
    ) -> dict[str, str]:
        """Apply what counts here; its digest, and what went wrong."""
        if item is None or own is None or own.source is None or not received:
            return {"sha256": "", "error": ""}
        try:
            is_merged = own.tunes and agreement.is_collective
            item.data = item.record.merge(received) if is_merged else received[0]
            if self._can_run(item):
                item.record.artifact.apply(item.data)
                item.is_applied = True
        except (Exception, SystemExit) as exc:
            if is_shutdown(exc):
                raise
            return {"sha256": "", "error": describe_error(exc)}
        return {"sha256": sha256(item.data), "error": ""}

    def _conclude(self, item: _Item, own: Equals, answers: Sequence[dict[str, str]], rank: int) -> None:
        """Keep what all equal ranks have applied; take back what not all of them could."""
        failed = [member for member in own.members if answers[member]["error"]]
        digests = {answers[member]["sha256"] for member in own.members}
        if not failed and len(digests) == 1:
            self._keep(item, own, rank)
            return
        why = f"rank {failed[0]}: {answers[failed[0]]['error']}" if failed else "equal ranks merged to other bytes"
        self._store.forget(item.fingerprint)  # what was kept is of no use: the next start tunes
        self._end(item, Outcome.FAILED, f"not applied: {why}{self._taken_back(item)}")

    def _taken_back(self, item: _Item) -> str:
        """Undo what `apply` did here; what that comes to, for the row. Empty where nothing was applied."""
        if not item.is_applied:
            return ""
        if not item.record.can_revert:
            return "\n  here it was applied, and cannot be taken back: the artifact has no revert()"
        try:
            item.record.artifact.revert()
        except (Exception, SystemExit) as exc:
            if is_shutdown(exc):
                raise
            return f"\n  here it was applied, and taking it back failed: {text_of(exc)}"
        self._emit("tuned_reverted", kernel=item.record.id, digest=item.digest)
        return "\n  here it was applied, and was taken back"

    def _keep(self, item: _Item, own: Equals, rank: int) -> None:
        data = item.data or b""
        note = self._published(item, data) if sha256(data) != item.stored_sha256 else ""
        if item.is_applied:
            self._emit(
                "tuned_applied",
                kernel=item.record.id,
                digest=item.digest,
                sha256=sha256(data),
                source=_origin(item, own, data, rank),
                members=list(own.members),
                note=note or None,
            )
        has_tuned = own.tunes and (rank == own.source or item.record.is_collective)
        self._end(item, Outcome.COMPILED if has_tuned else Outcome.LOADED, note)

    def _published(self, item: _Item, data: bytes) -> str:
        """Keep the result for later starts; why that was not possible."""
        record = TunedRecord(
            item.fingerprint,
            item.record.id,
            str(self._target),
            item.record.toolchain,
            item.text,
            sha256(data),
            time.time(),
            item.tune_s,
        )
        try:
            self._store.publish(record, data)
        except StoreError as exc:
            return f"applied, and not kept: {exc.message}"
        return ""

    def _end(self, item: _Item | None, outcome: Outcome, error: str = "") -> None:
        if (
            item is None or not item.text
        ):  # an artifact of other ranks; or a row of its own says why it has no fingerprint
            return
        seconds = round(time.monotonic() - item.started, 4)
        self._emit(
            "key_end",
            kernel=item.record.id,
            digest=item.digest,
            outcome=outcome.value,
            error=error or None,
            seconds=seconds,
        )


def _origin(item: _Item, own: Equals, data: bytes, rank: int) -> str:
    """Where a result came from, in an event."""
    if sha256(data) == item.stored_sha256:
        return "store"
    return "tuned" if own.source == rank else f"rank {own.source}"


def _first(failures: Sequence[Ending | None], ranks: Sequence[int]) -> Ending | None:
    return next((failure for rank in ranks if (failure := failures[rank])), None)


def _gathered(group: Group, own: Any) -> list[Any]:
    """What every rank says; the same list on all of them."""
    answers = group.all_gather(json.dumps(own))
    try:
        return [json.loads(answer) for answer in answers]
    except ValueError as exc:
        raise GroupError(f"a rank said what is no JSON: {exc}", "all ranks must run the same jitwarm") from exc


def _of_rank(told: Mapping[str, Any], artifact: str) -> Standing | None:
    """Where a rank stands with an artifact, by what it has told; None where it does not have it."""
    if artifact in told["standings"]:
        given = told["standings"][artifact]
        return Standing(**{**given, "problem": tuple(given["problem"]) if given["problem"] else None})
    absent = told["absent"]
    why = absent.get(artifact.partition(":")[0], absent.get("*"))
    return Standing(problem=(Outcome.FAILED.value, why)) if why else None


def take_part(group: Group, why: str) -> None:
    """What a rank does that has no artifacts to speak of because its run failed: it says so, and nobody applies anything.

    Raises:
        GroupError: Another rank is gone, or late.
    """
    _gathered(group, {"standings": {}, "absent": {"*": why}})
