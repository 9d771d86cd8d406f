"""A start, a comparison and a gate's list for a terminal, or a pipe.

What a log says is shown as text: no markup, no control characters.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jitwarm.reports.coverage import Coverage, of_kernels, total
from jitwarm.reports.gate import Breach
from jitwarm.reports.start import Key, Start, Unexpected

_N_CASES = 20
_N_SLOWEST = 5
_N_IDLE = 10
_N_ITEMS = 20
_COLUMNS = ("kernel", "expected", "warm", "loaded", "used", "missed", "never used", "seconds")


def show_start(console: Console, start: Start) -> None:
    """What one start came to: coverage by kernel, what is cold and why, what was never used, the verdict."""
    say = _Voice(console)
    _show_head(say, start)
    console.print(_coverage_table(start))
    _show_cold(say, start)
    for unexpected in start.unexpected[:_N_CASES]:
        _show_unexpected(say, unexpected)
    say.rest(len(start.unexpected), _N_CASES, "unexpected compiles")
    _show_undeclared(say, start)
    _show_idle(say, start)
    _show_notes(say, start)
    _show_slowest(say, start)
    _show_verdict(say, start)


def show_difference(console: Console, document: Mapping[str, Any]) -> None:
    """What the second start has that the first had not, and the other way round."""
    say = _Voice(console)
    a, b = document["a"], document["b"]
    say.line(
        f"a: {a['run']}  {a['target']}  {a['n_warm']} of {a['n_keys']} keys warm, {a['n_unexpected']} unexpected compiles"
    )
    say.line(
        f"b: {b['run']}  {b['target']}  {b['n_warm']} of {b['n_keys']} keys warm, {b['n_unexpected']} unexpected compiles"
    )
    for name in ("versions", "kernels", "config", "environment"):
        for path, (old, new) in document[name].items():
            say.line(f"{name}: {path}: {_value(old)} -> {_value(new)}")
    for name, sign, style in (("only_in_a", "-", "red"), ("only_in_b", "+", "green")):
        for key in say.first(document[name]):
            say.line(f"{sign} {key['kernel']} [{key['label']}] {key['outcome'] or 'not reached'}", style)
        say.rest(len(document[name]), _N_ITEMS, f"keys {name.replace('_', ' ')}")
    for key in say.first(document["outcomes"]):
        say.line(
            f"{key['kernel']} [{key['label']}] {key['a'] or 'not reached'} -> {key['b'] or 'not reached'}", "yellow"
        )
        say.block(key["error"])
    say.rest(len(document["outcomes"]), _N_ITEMS, "keys that ended differently")
    for found in say.first(document["unexpected"]["only_in_b"]):
        say.line(
            f"new unexpected {found['what']}: {found['kernel'] or found['function']} [{found['label']}] {found['seconds']:.2f} s",
            "bold red",
        )
        say.block("\n".join([found["why"], *found["differences"], found["line"]]))
    for found in say.first(document["unexpected"]["only_in_a"]):
        say.line(
            f"gone: unexpected {found['what']}: {found['kernel'] or found['function']} [{found['label']}]", "green"
        )
    for key in document["seconds"]["keys"][:_N_SLOWEST]:
        say.line(f"{key['change']:+.2f} s  {key['kernel']} [{key['label']}]  {key['a']:.2f} -> {key['b']:.2f} s", "dim")
    seconds, lost = document["seconds"], document["unexpected"]["seconds_lost"]
    gone, new, changed = (len(document[name]) for name in ("only_in_a", "only_in_b", "outcomes"))
    say.line(
        f"start {seconds['a']:.1f} -> {seconds['b']:.1f} s ({seconds['change']:+.1f}); "
        f"lost after it {lost['a']:.1f} -> {lost['b']:.1f} s; {gone} keys gone, {new} new, {changed} ended differently",
        "bold",
    )


def show_breaches(console: Console, breaches: Sequence[Breach], n_subjects: int) -> None:
    """Which limits are not kept, and by what."""
    say = _Voice(console)
    for breach in breaches:
        say.line(f"{breach.limit}: {breach.says}  ({breach.subject})", "bold red")
        for item in say.first(breach.items):
            say.line(f"    {item}")
        say.rest(len(breach.items), _N_ITEMS, "more lines (--json has all)", indent="    ")
    if not breaches:
        say.line(f"within the limits: {n_subjects} checked", "bold green")


class _Voice:
    """Prints lines of foreign text."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str, style: str = "") -> None:
        """One line, as it is; what is not printable becomes a replacement character."""
        self._console.print(Text(plain(text), style=style), soft_wrap=True, highlight=False)

    def block(self, text: str | None) -> None:
        """Lines that belong to the one above; empty ones are left out."""
        for line in (text or "").splitlines():
            if line.strip():
                self.line(f"    {line}")

    def first(self, items: Sequence[Any]) -> Sequence[Any]:
        """As many as a screen takes."""
        return items[:_N_ITEMS]

    def rest(self, n: int, shown: int, what: str, indent: str = "") -> None:
        """How many were not shown."""
        if n > shown:
            self.line(f"{indent}and {n - shown:,} {what}", "dim")


def plain(text: str) -> str:
    """Text that cannot steer a terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _show_head(say: _Voice, start: Start) -> None:
    state = "loaded on a GPU" if start.on_device else "built, not loaded: no GPU there"
    say.line(f"jitwarm {start.target}  {state}", "bold")
    say.line(
        f"run {start.name}: {_counted(len(start.processes), 'process')}, {_counted(len(start.workers), 'compile process')}, "
        f"{start.seconds:.1f} s; {start.source}",
        "dim",
    )
    for process in start.processes:
        phases = ", ".join(f"{span.name} {span.end_s - span.start_s:.1f} s" for span in process.phases)
        end = "" if process.is_complete else "; its warm-up did not end"
        say.line(f"  {process.name}: {phases}{end}", "dim" if process.is_complete else "yellow")
    for builder in start.builders:
        n = sum(len(worker.builds) for worker in start.workers if worker.parent == builder.id)
        say.line(f"  {builder.name}: {_counted(n, 'key')} built", "dim")
    if start.builders:
        say.line(f"{start.hidden_s:.1f} s of compiling hidden behind loading; {start.added_s:.1f} s added to the start")


def _coverage_table(start: Start) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "kernel" else "right", overflow="fold")
    rows = of_kernels(start)
    for row in rows:
        table.add_row(Text(plain(row.name)), *_cells(row))
    if len(rows) > 1:
        table.add_row(Text("all", style="bold"), *_cells(total(rows)))
    return table


def _cells(row: Coverage) -> list[Text]:
    counts = (row.expected, row.warmed, row.loaded, row.hit, row.missed, row.never_used)
    cells = [Text("-" if count is None else f"{count:,}") for count in counts]
    if row.warmed < row.expected:
        cells[1].stylize("bold red")
    if row.missed:
        cells[4].stylize("bold red")
    return [*cells, Text(f"{row.seconds:.2f}")]


def _show_cold(say: _Voice, start: Start) -> None:
    for unlisted in start.unlisted[:_N_CASES]:
        say.line(
            f"{unlisted.outcome} {unlisted.kernel} [keys could not be listed]",
            "yellow" if unlisted.outcome == "skipped" else "bold red",
        )
        say.block(unlisted.error)
    cold = start.cold
    for key in cold[:_N_CASES]:
        say.line(f"{key.outcome or 'not reached'} {key.kernel} [{key.label}]{_ranks(start, key)}", "bold red")
        say.block(key.error or ("no reason given" if key.outcome else "it was planned, and the log ends before it"))
        if command := start.repro(key):
            say.block(f"to try it alone: {command}")
    say.rest(len(cold), _N_CASES, "cold keys (--json has all)")


def _ranks(start: Start, key: Key) -> str:
    """Which processes say so, where not all of them do."""
    same = [
        process for process in start.processes if process.id in key.rows and key.rows[process.id].outcome == key.outcome
    ]
    return "" if len(same) == len(key.rows) else f" in {', '.join(process.name for process in same)}"


def _show_unexpected(say: _Voice, found: Unexpected) -> None:
    times = f", {found.n} times in {_counted(len(found.processes), 'process')}" if found.n > 1 else ""
    say.line(
        f"unexpected {found.what} {found.kernel or found.function} [{found.label}] {found.seconds:.2f} s lost{times}",
        "bold red",
    )
    _show_reason(say, found)


def _show_reason(say: _Voice, found: Unexpected) -> None:
    say.block(found.why)
    for difference in found.differences:
        say.block(f"  {difference}")
    if found.line:
        say.block(f"-> {found.line}")
    if found.site:
        say.block(f"at {found.site}")


def _show_undeclared(say: _Voice, start: Start) -> None:
    """What is left to declare: no request waited for it this time."""
    for during in dict.fromkeys(found.during for found in start.undeclared):
        cases = [found for found in start.undeclared if found.during == during]
        say.line(f"compiled during {during}, declared by nobody: {len(cases):,}", "yellow")
        for found in cases[:_N_CASES]:
            say.line(f"  {found.what} {found.kernel or found.function} [{found.label}] {found.seconds:.2f} s")
            _show_reason(say, found)
        say.rest(len(cases), _N_CASES, "undeclared compiles (--json has all)", indent="  ")
    if start.execution and start.execution.status == "failed":
        say.line(f"the execution run failed: {start.execution.why}", "bold red")


def _show_idle(say: _Voice, start: Start) -> None:
    idle = start.never_used
    if not idle:
        return
    say.line(
        f"never used: {_counted(len(idle), 'warm key')}, {sum(key.seconds for key in idle):.1f} s to build", "yellow"
    )
    for key in idle[:_N_IDLE]:
        say.block(f"{key.seconds:8.2f} s  {key.kernel} [{key.label}]")
    say.rest(len(idle), _N_IDLE, "keys (--json has all)", indent="    ")


def _show_notes(say: _Voice, start: Start) -> None:
    for refused in _once(item for process in start.processes for item in process.report.refused):
        say.line(f"plugin refused {refused['plugin']} ({refused['distribution']}): {refused['reason']}", "bold red")
    for error in _once(item for process in start.processes for item in process.report.policy_errors):
        say.line(f"policy failed {error['plugin']}.{error['hook']}: {error['error']}", "bold red")
    texts = list(dict.fromkeys(incident.text for incident in start.incidents))
    for text in texts[:_N_CASES]:
        say.line(f"note: {text}", "yellow")
    say.rest(len(texts), _N_CASES, "notes (--json has all)")
    if start.n_unreadable or start.n_foreign:
        say.line(
            f"note: {start.n_unreadable} lines of the log could not be read, {start.n_foreign} are of another version",
            "yellow",
        )


def _once(items: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return list({repr(item): item for item in items}.values())


def _show_slowest(say: _Voice, start: Start) -> None:
    slowest = sorted((key for key in start.keys.values() if key.seconds), key=lambda key: -key.seconds)[:_N_SLOWEST]
    if slowest:
        say.line("slowest:", "dim")
    for key in slowest:
        say.line(f"    {key.seconds:8.2f} s  {key.kernel} [{key.label}]", "dim")


def _show_verdict(say: _Voice, start: Start) -> None:
    n_warm = sum(key.is_warm for key in start.keys.values())
    is_fine = start.is_warm and not start.unexpected and start.is_complete
    verdict = "all warm" if is_fine else "warm, and yet" if start.is_warm else "not all warm"
    missed = f"{_counted(len(start.unexpected), 'unexpected compile')}, {start.seconds_lost:.1f} s lost"
    after = missed if start.is_watched or start.unexpected else "not watched after it"
    end = "" if start.is_complete else "; the warm-up did not end, or goes on"
    say.line(
        f"{verdict}: {n_warm} of {len(start.keys)} keys in {start.seconds:.1f} s, {start.n_compiles} compiler runs; {after}{end}",
        "bold green" if is_fine else "bold red",
    )


def _counted(n: int, name: str) -> str:
    return f"{n:,} {name}{'' if n == 1 else 'es' if name.endswith('s') else 's'}"


def _value(value: Any) -> str:
    return "none" if value is None else str(value)
