"""The command `jitwarm ready`: one question to a ready file, for a probe or a person."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from jitwarm.errors import UsageError
from jitwarm.readiness import read

NOT_READY = 1


def ready(
    file: Annotated[Path, typer.Argument(help="What JITWARM_READY_FILE names.")],
    max_age_s: Annotated[
        float | None,
        typer.Option(
            "--max-age-s", min=0, help="Also fine while not ready, if the last progress is at most so many seconds ago."
        ),
    ] = None,
) -> None:
    """Tell how far a server's warm-up is. Exit code 0: ready, or with --max-age-s going on; 1: not, or no such file."""
    try:
        document, age_s = read(file), time.time() - file.stat().st_mtime
    except FileNotFoundError:
        document, age_s = None, 0.0
    except OSError as exc:
        raise UsageError(f"cannot read {file}: {exc.strerror}") from exc
    if document is None:
        print(f"no warm-up has begun: {file} is not there, or no ready file")  # noqa: T201 - the answer
        raise typer.Exit(NOT_READY)
    print(_sentence(document, age_s))  # noqa: T201 - the answer
    if not document.get("ready") and (max_age_s is None or age_s > max_age_s):
        raise typer.Exit(NOT_READY)


def _sentence(document: dict[str, Any], age_s: float) -> str:
    state = "ready" if document.get("ready") else f"not ready, last progress {age_s:.0f} s ago"
    told = [f"{state}: {document['phase']}, {document['n_done']} of {document['n_keys']} keys"]
    told += [f"now {document['current']}"] if document.get("current") else []
    told += [str(document["error"])] if document.get("error") else []
    return "; ".join(told)
