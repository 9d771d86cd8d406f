"""Reports, plans, plugins and findings as tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jitwarm.contract.backend import Backend, Finding
from jitwarm.contract.kernel import Outcome
from jitwarm.engine.report import KernelReport, Report, Row
from jitwarm.tracing import Explanation, explanation_of

if TYPE_CHECKING:
    from jitwarm.registry import Registry

_N_SLOWEST = 3
_N_REGIONS = 4
_STYLES = {"compiled": "green", "loaded": "cyan", "already_warm": "cyan", "skipped": "yellow", "unresolved": "yellow"}
_LEVEL_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def terminal(*, is_error: bool = False) -> Console:
    """stdout, or stderr; on a pipe wide enough that no line is cut."""
    stream = sys.stderr if is_error else sys.stdout
    return Console(stderr=is_error) if stream.isatty() else Console(width=200, stderr=is_error)


def print_json(document: dict[str, Any] | list[Any]) -> None:
    """One document on stdout."""
    print(json.dumps(document, indent=2, default=str))  # noqa: T201 - the document is what was asked for


def show_report(console: Console, report: Report, *, strict: bool = False) -> None:
    """A finished run: one line per kernel, then what is not warm and why, then the verdict."""
    state = (
        "loaded on this machine's GPU" if report.on_device else f"built for {report.target}, not loaded: no GPU here"
    )
    console.print(f"[bold]jitwarm[/] {report.target}  [dim]{state}[/]")
    if not report.kernels:
        console.print(
            "no kernels: no installed package has an entry point in the group jitwarm.kernels that yields one"
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kernel", "backend", "from", "keys", "outcome", "seconds"):
        table.add_column(name, justify="right" if name in ("keys", "seconds") else "left", overflow="fold")
    for kernel in report.kernels.values():
        n_keys = sum(row.digest is not None for row in kernel.rows)
        seconds = sum(row.seconds for row in kernel.rows)
        table.add_row(
            kernel.id, kernel.backend or "-", kernel.distribution, str(n_keys), _outcomes(kernel), f"{seconds:.2f}"
        )
    console.print(table)
    _show_cold(console, report)
    _show_refused(console, report)
    _show_notes(console, report.kernels.values())
    _show_verdict(console, report, strict=strict)


def show_plan(console: Console, report: Report, *, every_key: bool = True) -> None:
    """A plan: each kernel with its keys."""
    console.print(f"[bold]jitwarm[/] {report.target}  [dim]{report.n_keys} keys planned[/]")
    for kernel in report.kernels.values():
        n_keys = sum(row.digest is not None for row in kernel.rows)
        console.print(
            f"[bold]{escape(kernel.id)}[/]  {kernel.backend or '-'}  [dim]{kernel.distribution}[/]  {n_keys} keys"
        )
        for row in kernel.rows if every_key else ():
            name = row.digest[:12] if row.digest else row.outcome
            console.print(f"  [dim]{name}[/]  {escape(row.label)}" + (f"  {escape(row.error)}" if row.error else ""))
    _show_refused(console, report)
    _show_notes(console, report.kernels.values())


def show_explanations(
    console: Console, report: Report, explanations: Mapping[str, Sequence[Explanation]], *, as_markdown: bool
) -> None:
    """For each key of each kernel the inputs that reach it, and one of them."""
    for kernel in report.kernels.values():
        by_key = {explanation.key: explanation for explanation in explanations.get(kernel.id, ())}
        if as_markdown:
            console.print(f"### `{kernel.id}`\n\n| key | reached by | for example |\n|---|---|---|", markup=False)
        else:
            console.print(f"[bold]{escape(kernel.id)}[/]  {kernel.backend or '-'}  {len(kernel.rows)} keys")
        for row in kernel.rows:
            found = explanation_of(row.key or "", row.label, by_key)
            _show_explanation(console, row, found, as_markdown=as_markdown)
        if as_markdown:
            console.print()
    if not as_markdown:
        _show_notes(console, report.kernels.values())
    _show_refused(console, report)


def _show_explanation(console: Console, row: Row, found: Explanation | None, *, as_markdown: bool) -> None:
    regions = list(found.regions) if found else [row.error or "listed by hand"]
    witness = ", ".join(f"{name}={value!r}" for name, value in found.witness.items()) if found else ""
    if as_markdown:
        cells = (row.label, " <br> ".join(regions), witness)
        console.print(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |", markup=False, soft_wrap=True
        )
        return
    console.print(f"  {escape(row.label)}")
    for region in regions[:_N_REGIONS]:
        console.print(f"      {escape(region)}", highlight=False, soft_wrap=True)
    if len(regions) > _N_REGIONS:
        console.print(f"      and {len(regions) - _N_REGIONS} more regions (--json has all)")
    if witness:
        console.print(f"      [dim]e.g. {escape(witness)}[/]", highlight=False, soft_wrap=True)


def show_plugins(console: Console, registry: "Registry", kernels: Sequence[tuple[str, str]]) -> None:
    """What is installed: plugins with their hooks and kernels, backends, and what was refused."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("plugin", "from", "hooks", "kernels"):
        table.add_column(name, overflow="fold")
    for plugin in registry.plugins.values():
        own = ", ".join(kernel_id for kernel_id, owner in kernels if owner == plugin.name)
        hooks = ", ".join(hook.removeprefix("jitwarm_") for hook in plugin.hooks)
        table.add_row(plugin.name, plugin.distribution, hooks, own or "-")
    console.print(table)
    for backend in registry.backends:
        console.print(f"backend {backend.name}: {_backend_state(backend)}")
    for refused in registry.refused:
        console.print(f"[bold red]refused[/] {refused.name} ({refused.distribution}): {escape(refused.reason)}")
    if registry.left_out:
        console.print(f"[yellow]left out by JITWARM_PLUGINS or JITWARM_DISABLE[/]: {', '.join(registry.left_out)}")


def show_findings(console: Console, findings: Iterable[Finding]) -> None:
    """What `doctor` saw, and what to do about it."""
    for finding in findings:
        console.print(
            f"[{_LEVEL_STYLES[finding.level]}]{finding.level:7}[/] [bold]{finding.check}[/]: {escape(finding.detail)}"
        )
        if finding.fix:
            console.print(f"        -> {escape(finding.fix)}")


def _outcomes(kernel: KernelReport) -> str:
    parts = []
    for outcome in Outcome:
        n = sum(row.outcome == outcome.value for row in kernel.rows)
        if n:
            parts.append(f"[{_STYLES.get(outcome.value, 'bold red')}]{n} {outcome.value}[/]")
    return ", ".join(parts) or "[yellow]0 keys[/]"


def _show_cold(console: Console, report: Report) -> None:
    warm = {outcome.value for outcome in Outcome if outcome.is_warm}
    for kernel in report.kernels.values():
        for row in kernel.rows:
            if row.outcome not in warm:
                style = _STYLES.get(row.outcome or "", "bold red")
                console.print(f"[{style}]{row.outcome}[/] {escape(kernel.id)} {escape(f'[{row.label}]')}")
                for line in (row.error or "no reason given").splitlines():
                    console.print(f"    {escape(line)}", highlight=False)
                if repro := report.repro(row):
                    console.print(f"    to try it alone: {escape(repro)}", highlight=False, soft_wrap=True)


def _show_refused(console: Console, report: Report) -> None:
    for refused in report.refused:
        console.print(
            f"[bold red]plugin refused[/] {refused['plugin']} ({refused['distribution']}): {escape(refused['reason'])}"
        )
    for error in report.policy_errors:
        console.print(
            f"[bold red]policy failed[/] {error['plugin']}.{error['hook']}: {escape(error['error'])}; the next one was asked"
        )


def _show_notes(console: Console, kernels: Iterable[KernelReport]) -> None:
    for kernel in kernels:
        for note in kernel.notes:
            console.print(f"[yellow]note[/] {escape(kernel.id)}: {escape(note)}")


def _show_verdict(console: Console, report: Report, *, strict: bool) -> None:
    n_warm = sum(count for name, count in report.outcomes.items() if Outcome(name).is_warm)
    n_skipped = report.outcomes.get(Outcome.SKIPPED.value, 0)
    verdict = "[bold green]all warm[/]" if report.is_complete(strict=strict) else "[bold red]not all warm[/]"
    skipped = f", {n_skipped} skipped" if n_skipped else ""
    refused = f", {len(report.refused)} plugins refused" if report.refused else ""
    slowest = sorted((row for row in report.rows if row.outcome == "compiled"), key=lambda row: -row.seconds)[
        :_N_SLOWEST
    ]
    console.print(
        f"{verdict}: {n_warm} of {report.n_keys} keys{skipped}{refused} in {report.seconds:.1f} s, "
        f"{report.n_compiles} compiler runs; "
        f"store {report.root}",
        soft_wrap=True,
    )
    if slowest:
        names = {id(row): kernel.id for kernel in report.kernels.values() for row in kernel.rows}
        console.print(
            f"[dim]slowest: {'; '.join(f'{names[id(row)]} {row.seconds:.1f} s' for row in slowest)}[/]", soft_wrap=True
        )


def _backend_state(backend: Backend) -> str:
    missing = backend.missing()
    return (
        f"[yellow]not installed[/] ({escape(missing)})" if missing else f"[green]{backend.toolchain().full_text()}[/]"
    )
