"""One key again, alone and in the foreground: for whoever mends the compiler that fails on it.

A run's event log says all that is needed: target, configuration, the compilers' variables, plugin, kernel and key.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jitwarm.engine.jobs import Job
from jitwarm.engine.processes import environment_of_child
from jitwarm.environment import compiler_variables
from jitwarm.errors import StoreError, UsageError

_LEAST_LENGTH = 6


@dataclass(frozen=True)
class Planned:
    """A key as a run planned it.

    Attributes:
        job: What builds it.
        label: The key for people.
        environment: The compilers' variables in that run.
        caches: Variables that move the compilers' disk caches, with a directory below the root for each.
        log: The event log that says so.
    """

    job: Job
    label: str
    environment: dict[str, str]
    caches: dict[str, str]
    log: Path


def find(root: Path, digest: str) -> Planned:
    """The newest run of a store that planned a key.

    Args:
        root: The store.
        digest: The key's, or its first digits.

    Raises:
        UsageError: No kept run has planned it, or the digits name several keys.
    """
    if len(digest) < _LEAST_LENGTH:
        raise UsageError(f"{digest!r} is too short to name a key", f"give {_LEAST_LENGTH} digits of its digest or more")
    logs = sorted(root.glob("events/*/*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for log in logs:
        events = list(_events(log, f'"digest": "{digest}'))
        planned = {event["digest"]: event for event in events if event["event"] == "key_planned"}
        if len(planned) > 1:
            raise UsageError(f"{digest} names {len(planned)} keys", f"give more digits: {', '.join(sorted(planned))}")
        if planned:
            return _planned(log, next(iter(planned.values())))
    raise UsageError(
        f"no run in {root} planned a key {digest}",
        "reports print the whole command; name the store with --root. Event logs of the newest 20 runs are kept",
    )


def run(planned: Planned) -> NoReturn:
    """Become a process that builds the key into a directory of its own, and nothing else.

    What the compiler prints is seen as it comes; if it crashes, this process does. The GPU is hidden, as it is from every
    compile process.

    Raises:
        StoreError: No temporary directory can be made.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix="jitwarm-repro-"))
        file = scratch / "job.json"
        file.write_text(json.dumps({**planned.job.to_json(), "root": str(scratch / "store")}), encoding="utf-8")
    except OSError as exc:
        raise StoreError(f"cannot make a directory for what is built: {exc}", "set TMPDIR") from exc
    caches = {name: str(scratch / "store" / directory) for name, directory in planned.caches.items()}
    # A compiler's variable that was not set in that run is not set now, either.
    others = {name: value for name, value in environment_of_child().items() if name not in compiler_variables()}
    environment = {**others, **planned.environment, **caches}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-P", "-m", "jitwarm.child", "--job", str(file)], environment)  # noqa: S606 - this interpreter and our own module


def _planned(log: Path, key: dict[str, Any]) -> Planned:
    kernel_id = key["kernel"]
    said = {event["event"]: event for event in _events(log, "") if event.get("kernel", kernel_id) == kernel_id}
    kernel = said["kernel_planned"]
    job = Job(
        plugin=kernel_id.partition(":")[0],
        backend_plugin=said["backends"]["plugins"].get(kernel["backend"] or "", ""),
        kernel=kernel_id,
        key=key["key"],
        target=said["run_start"]["target"],
        config=said["config"]["config"],
        root="",
        run="repro",
        distribution=kernel["distribution"],
        import_path=kernel["import_path"],
    )
    return Planned(job, key["label"], said["environment"]["variables"], said["backends"]["caches"], log)


def _events(log: Path, containing: str) -> Iterator[dict[str, Any]]:
    """The events of one log whose line holds a text; a line that a killed process did not end is left out."""
    try:
        with log.open(encoding="utf-8") as lines:
            for line in lines:
                if containing in line and line.endswith("\n"):
                    yield json.loads(line)
    except (OSError, ValueError):
        return
