"""The commands that read event logs: `jitwarm report` and `jitwarm check`. They load no plugin and no compiler.

Exit codes are those of `jitwarm.cli`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jitwarm.errors import UsageError
from jitwarm.reports.difference import difference
from jitwarm.reports.document import document, to_text
from jitwarm.reports.folding import read_starts
from jitwarm.reports.gate import Breach, Limits, breaches, subjects
from jitwarm.reports.page import page
from jitwarm.reports.start import Start
from jitwarm.reports.terminal import show_breaches, show_difference, show_start
from jitwarm.reports.trace import trace
from jitwarm.reports.writing import write
from jitwarm.settings import read
from jitwarm.tables import print_json, terminal

_BROKEN = 1
_PAIR = 2

Root = Annotated[
    Path | None, typer.Option("--root", help="The store in which runs are looked up. Default: this user's store.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(report)
    app.command()(check)


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="A run's directory, an event file, or a run's name in the store. Default: the newest.",
        ),
    ] = None,
    root: Root = None,
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained HTML page.")] = None,
    trace_file: Annotated[
        Path | None, typer.Option("--trace", help="Write a trace for Perfetto (Chrome's trace event format).")
    ] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Compare two starts.")] = False,
) -> None:
    """Show what a start planned, built, loaded, and met later: from its event log alone."""
    if diff and (html or trace_file):
        raise UsageError("--diff compares two starts, --html and --trace show one", "leave one of them out")
    starts = read_starts(runs or [], _root(root))
    if diff:
        _show_difference(starts, as_json=as_json)
        return
    for path, made, option in ((html, page, "--html"), (trace_file, _trace_text, "--trace")):
        if path:
            _write(path, made, _only(starts, option))
    if as_json:
        documents = [document(start) for start in starts]
        print_json(documents[0] if len(documents) == 1 else documents)
    elif not (html or trace_file):
        for start in starts:
            show_start(terminal(), start)


def check(
    reports: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN_OR_REPORT]...",
            help="A run, as for `report`, or a file with the JSON of plan, warm, bake or report. Default: the newest run.",
        ),
    ] = None,
    budget: Annotated[int | None, typer.Option("--budget", min=0, help="At most so many expected keys.")] = None,
    max_cold: Annotated[
        int | None,
        typer.Option("--max-cold", min=0, help="At most so many keys that are not warm, plus unexpected compiles."),
    ] = None,
    max_never_used: Annotated[
        int | None, typer.Option("--max-never-used", min=0, help="At most so many warm keys that nothing asked for.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", min=0, help="The start takes at most so long.")
    ] = None,
    max_undeclared: Annotated[
        int | None,
        typer.Option("--max-undeclared", min=0, help="At most so many compiles before serving that nobody declares."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Count skipped keys as cold, whatever the reason.")] = False,
    root: Root = None,
    as_json: AsJson = False,
) -> None:
    """Fail if a start does not keep its limits: the gate for continuous integration."""
    limits = Limits(budget, max_cold, max_never_used, max_seconds, strict, max_undeclared)
    if limits.are_none:
        hint = "give --budget, --max-cold, --max-never-used, --max-undeclared or --max-seconds"
        raise UsageError("there is no limit to check", hint)
    checked = subjects(reports or [], _root(root))
    broken = [breach for subject in checked for breach in breaches(subject, limits)]
    if as_json:
        print_json(_verdict(limits, [subject.name for subject in checked], broken))
    else:
        show_breaches(terminal(), broken, len(checked))
    if broken:
        raise typer.Exit(_BROKEN)


def _root(root: Path | None) -> Path:
    return (root or read().settings.root).absolute()


def _trace_text(start: Start) -> str:
    return to_text(trace(start))


def _write(path: Path, made: Callable[[Start], str], start: Start) -> None:
    write(path, made(start))
    terminal(is_error=True).print(f"written: {path}", markup=False, soft_wrap=True, highlight=False)


def _only(starts: Sequence[Start], option: str) -> Start:
    if len(starts) > 1:
        raise UsageError(f"{option} shows one start, and {len(starts)} were named", f"name one: {starts[0].source}")
    return starts[0]


def _show_difference(starts: Sequence[Start], *, as_json: bool) -> None:
    if len(starts) != _PAIR:
        raise UsageError(f"--diff compares two starts, and {len(starts)} were named", "jitwarm report A B --diff")
    found = difference(*starts)
    if as_json:
        print_json(found)
    else:
        show_difference(terminal(), found)


def _verdict(limits: Limits, checked: list[str], broken: Sequence[Breach]) -> dict[str, Any]:
    return {
        "format": "jitwarm-check",
        "version": 1,
        "passed": not broken,
        "checked": checked,
        "limits": asdict(limits),
        "broken": [asdict(breach) for breach in broken],
    }
