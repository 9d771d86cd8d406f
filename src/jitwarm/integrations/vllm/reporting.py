"""What a person sees of the warm-up inside vLLM: vLLM's own log, and one progress bar.

Ranks of one node mostly have the same to say. Whoever says it first leaves a mark in the run's directory, and the others keep
silent: one line per node, not per rank.
"""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from jitwarm.contract.kernel import Outcome
from jitwarm.engine.elsewhere import OVER
from jitwarm.engine.report import Report
from jitwarm.monitor import sentence
from jitwarm.session import Session

log = logging.getLogger("vllm.jitwarm")  # only loggers below `vllm` have a handler

_WARM = frozenset(outcome.value for outcome in Outcome if outcome.is_warm)
_MAX_LINES = 20
_N_UNDECLARED = 5


class Reporter:
    """Listens to a run; shows a bar on the first rank, and tells at the end what is warm and what is not, with the culprit.

    Args:
        worker: vLLM's worker.
        is_verbose: Also log each key.
    """

    def __init__(self, worker: Any, *, is_verbose: bool) -> None:
        self._start = str(getattr(worker.vllm_config, "instance_id", ""))
        self._is_verbose = is_verbose
        self._has_bar = worker.rank == 0 and not _data_parallel_rank(worker) and not is_verbose  # one or the other
        self._n_keys = 0
        self._current = ""
        self._bar: Any = None
        self._n_unexpected = 0
        self._undeclared: list[Mapping[str, Any]] = []
        self._node: _Node | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event into account. Never raises: a bar that cannot be drawn is given up."""
        try:
            self._show(event)
        except Exception:  # noqa: BLE001 - as said
            self._bar, self._has_bar = None, False

    def _show(self, event: Mapping[str, Any]) -> None:
        name = event["event"]
        if name == "unexpected_compile":
            self._warn(event)
        elif name == "undeclared_compile":
            self._undeclared.append(event)
        elif name == "execution_run":
            self._tell_undeclared(event)
        elif name == "key_planned":
            self._n_keys += 1
        elif name == "key_start":
            self._current = f"{event['kernel']} [{event['label']}]"
            if self._has_bar and self._bar is None:
                self._bar = _bar(self._n_keys)
        elif name == "key_end":
            if self._bar is not None:
                self._bar.set_postfix_str(event["kernel"], refresh=False)
                self._bar.update()
            if self._is_verbose:
                log.info("jitwarm: %s: %s in %.2f s", self._current, event["outcome"], event["seconds"])

    def _warn(self, event: Mapping[str, Any]) -> None:
        """One line for each compile while serving, up to a number: the event log has them all."""
        self._n_unexpected += 1
        if self._n_unexpected <= _MAX_LINES:
            log.warning("jitwarm: %s; at %s; %s", sentence(event), event["site"], event["line"])
        if self._n_unexpected == _MAX_LINES:
            log.warning("jitwarm: further compiles are in the event log only")

    def _tell_undeclared(self, run: Mapping[str, Any]) -> None:
        """What an execution run came to, and what is left to declare: no request waited for it this time."""
        if self._node is None:
            return
        if run["by"] == "jitwarm" and run["status"] == "done":
            self._node.say(
                logging.INFO, f"execution run of {run['n']} requests in {run['seconds']:.1f} s", mark="execution"
            )
        found, self._undeclared = self._undeclared, []
        for event in found[:_N_UNDECLARED]:
            self._node.say(logging.INFO, f"{sentence(event)}; at {event['site']}; {event['line']}", mark=_name(event))
        if len(found) > _N_UNDECLARED:
            self._node.say(logging.INFO, f"{len(found)} compiles that nobody declares, all of them: jitwarm report")

    def close(self, session: Session) -> None:
        """End the bar and log what the run came to."""
        if self._bar is not None:
            self._bar.close()
        report = session.report
        node = self._node = _Node(session, self._start)
        for line in complaints(report):
            node.say(logging.WARNING, line)
        n_warm = sum(n for outcome, n in report.outcomes.items() if outcome in _WARM)
        rows = Counter(row.outcome for row in report.rows if row.digest)
        n_unlisted = len(report.rows) - report.n_keys
        counts = ", ".join(
            [f"{n} {outcome}" for outcome, n in rows.items()]
            + ([f"{n_unlisted} kernels could not list theirs"] if n_unlisted else [])
        )
        node.say(
            logging.INFO,
            f"{n_warm} of {report.n_keys} keys warm for {report.target} in {report.seconds:.1f} s"
            + (f" ({counts})" if counts else "")
            + f"; events in {session.root / 'events' / session.log.run}",
            mark=" ".join(sorted(row.digest or "" for row in report.rows)),
        )


class _Node:
    """The ranks on one node, as far as they share the run's directory: those of one engine.

    Args:
        session: The run.
        start: Names this start of the engine, for two may share a run's name.
    """

    def __init__(self, session: Session, start: str) -> None:
        self._directory = session.root / "events" / session.log.run
        self._start = start

    def say(self, level: int, text: str, mark: str = "") -> None:
        """Log `text`, unless another rank of this node has said it, or what has the same mark."""
        log.log(level if self._is_first(mark or text) else logging.DEBUG, "jitwarm: %s", text)

    def _is_first(self, mark: str) -> bool:
        name = f".said-{os.uname().nodename}-{hashlib.sha256(f'{self._start} {mark}'.encode()).hexdigest()[:16]}"
        try:
            os.close(os.open(self._directory / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        except OSError:
            return True
        return True


def _name(event: Mapping[str, Any]) -> str:
    """The same for a compile that several ranks have met."""
    return " ".join(str(event[field]) for field in ("during", "backend", "function", "kernel", "label"))


def complaints(report: Report) -> list[str]:
    """What is not as it should be, each with its culprit."""
    refused = [f"plugin {r['plugin']} ({r['distribution']}) is left out: {r['reason']}" for r in report.refused]
    policies = [f"policy {e['plugin']}.{e['hook']} failed: {e['error']}" for e in report.policy_errors]
    late = Counter(row.error for row in report.rows if row.error in OVER)
    refused += [f"{n} keys are not warm: {why}" for why, n in late.items()]
    cold = [
        f"{kernel.id} {f'[{row.label}] ' if row.digest else ''}is {row.outcome}: {row.error or 'no reason given'}"
        + (f"\n  to try it alone: {repro}" if (repro := report.repro(row)) else "")
        for kernel in report.kernels.values()
        for row in kernel.rows
        if row.outcome not in _WARM and row.outcome != Outcome.SKIPPED.value
    ]
    if len(cold) > _MAX_LINES:
        cold = [*cold[:_MAX_LINES], f"and {len(cold) - _MAX_LINES} more keys; the event log has them all"]
    return refused + policies + cold


def _bar(n_keys: int) -> Any:
    from tqdm import tqdm  # noqa: PLC0415 - vLLM has it

    return tqdm(total=n_keys, desc=f"jitwarm ({n_keys} keys)", unit="key", dynamic_ncols=True)


def _data_parallel_rank(worker: Any) -> int:
    parallel = getattr(worker.vllm_config, "parallel_config", None)
    return int(getattr(parallel, "data_parallel_rank", 0) or 0)
