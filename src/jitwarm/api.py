"""The whole job in one call, for servers other than vLLM and for build scripts."""

import atexit
import dataclasses
import logging
import os
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from jitwarm.contract.config import WarmupConfig
from jitwarm.contract.kernel import Outcome
from jitwarm.contract.target import Target
from jitwarm.engine.processes import BLIND
from jitwarm.engine.report import Report
from jitwarm.errors import WarmupFailedError
from jitwarm.monitor import sentence
from jitwarm.session import Session
from jitwarm.settings import Asked, read, read_config

# What goes on after `warm`, until this process ends or warms up again.
_WATCHED = ExitStack()
atexit.register(_WATCHED.close)


def warm(
    config: WarmupConfig | Mapping[str, Any] | None = None,
    *,
    target: str | None = None,
    kernels: str = "*",
    strict: bool = False,
    monitor: Literal["off", "warn", "error", "record"] = "off",
) -> Report:
    """Make every key that `config` can reach warm in this process: the whole job, for servers other than vLLM.

    Args:
        config: What will run; None takes the defaults.
        target: e.g. `"cuda:90"`; None takes `JITWARM_TARGET`, else this process's GPU.
        kernels: Glob over kernel ids.
        strict: Raise if anything is not warm at the end.
        monitor: What happens from then on, for the rest of this process, when something compiles all the same: `"warn"` logs it
            with the reason (logger `jitwarm`), `"error"` also makes the launch raise, `"record"` also writes it down for
            `jitwarm learn`, `"off"` nothing.

    Returns:
        The report. One key's failure is a row in it.

    Raises:
        UsageError: An unknown target, or a glob that matches nothing.
        StoreError: The cache directory cannot be used.
        WarmupFailedError: With `strict`, once, with the list.

    Side effects: compiles; writes the store; sets the compilers' cache variables in `os.environ` where they are unset.
    """
    asked = _asked(config)
    asked = dataclasses.replace(asked, settings=dataclasses.replace(asked.settings, monitor=monitor))
    session = Session(asked, Target.parse(target) if target else None, listeners=[_log])
    return _complete(session, kernels, strict=strict, is_watched=monitor != "off")


def bake(
    out: Path | str,
    config: WarmupConfig | Mapping[str, Any] | None = None,
    *,
    target: str | None = None,
    kernels: str = "*",
    strict: bool = False,
    executor: Executor | None = None,
) -> Report:
    """Build every key that `config` can reach into a directory, here or on the hosts of a cluster.

    Args:
        out: The directory; made if need be.
        config: What will run; None takes the defaults.
        target: e.g. `"cuda:90"`; None takes `JITWARM_TARGET`. One per process: compilers keep the first that they are given.
        kernels: Glob over kernel ids.
        strict: Raise if anything is not warm at the end.
        executor: Any executor of `concurrent.futures`, or that of `jitwarm.integrations.ray` or `.dask`; it stays open. Its
            hosts have the same jitwarm, compilers and plugins installed. None builds in compile processes here.

    Returns:
        The report. One key's failure is a row in it.

    Raises:
        UsageError: An unknown target, or a glob that matches nothing.
        StoreError: The directory cannot be used.
        WarmupFailedError: With `strict`, once, with the list.

    Side effects: compiles; writes `out`; hides the GPU from this process and sets the compilers' cache variables, in
    `os.environ`.
    """
    os.environ.update(BLIND)
    session = Session(_asked(config), Target.parse(target) if target else None, root=Path(out), executor=executor)
    return _complete(session, kernels, strict=strict)


def _asked(config: WarmupConfig | Mapping[str, Any] | None) -> Asked:
    values = read_config(config) if isinstance(config, Mapping) else config or WarmupConfig()
    found = read()
    return Asked(values, found.settings, found.learned)


def _complete(session: Session, kernels: str, *, strict: bool, is_watched: bool = False) -> Report:
    """One whole run, and the monitor after it."""
    with ExitStack() as stack:
        stack.callback(session.finish)
        plan = session.plan(kernels, will_run=True)
        report = session.run(plan)
        if strict and not report.is_complete(strict=True):
            raise WarmupFailedError("not everything is warm", failures(report))
        if is_watched:
            _WATCHED.close()
            stack.enter_context(session.monitor(plan))
            _WATCHED.push(stack.pop_all())
    return report


def _log(event: Mapping[str, Any]) -> None:
    """One warning for each compile after the start."""
    if event["event"] == "unexpected_compile":
        logging.getLogger("jitwarm").warning("%s; at %s; %s", sentence(event), event["site"], event["line"])


def failures(report: Report) -> str:
    """What is not warm, one line each."""
    cold = [
        f"{kernel.id} [{row.label}] {row.outcome}: {(row.error or '').splitlines()[0] if row.error else ''}"
        for kernel in report.kernels.values()
        for row in kernel.rows
        if row.outcome not in {outcome.value for outcome in Outcome if outcome.is_warm}
    ]
    return "\n".join(cold + [f"plugin {refused['plugin']} refused: {refused['reason']}" for refused in report.refused])
