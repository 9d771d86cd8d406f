"""The command line: `jitwarm plugins | plan | warm | bake | repro | doctor`, and `report | check` of `report_commands`.

Exit codes: 0 all asked keys are warm, 1 some are not, 2 usage, 3 toolchain or preflight, 4 store. Reports go to stdout,
progress and errors to stderr.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from jitwarm import doctor as preflight
from jitwarm import learn_command, probe, report_commands, tables
from jitwarm import repro as reproduction
from jitwarm.contract.backend import Finding
from jitwarm.contract.target import Target
from jitwarm.deadlines import shut_down
from jitwarm.engine.processes import BLIND
from jitwarm.engine.report import Report
from jitwarm.errors import JitwarmError, StoreError, TargetError, ToolchainError, UsageError
from jitwarm.integrations import clusters
from jitwarm.progress import Progress
from jitwarm.reports.like import config_like
from jitwarm.session import Session
from jitwarm.settings import Asked, read
from jitwarm.tables import print_json, terminal

FAILED, USAGE, TOOLCHAIN, STORE = 1, 2, 3, 4

app = typer.Typer(
    name="jitwarm",
    help="Compile every kernel specialization that a configuration can reach, before the first request.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML: fields of WarmupConfig, \\[settings], \\[extra.<plugin>].")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="A value over the file's: max_num_seqs=64, or <plugin>.<name>=<TOML value>."),
]
Like = Annotated[
    str | None,
    typer.Option(
        "--like", help="Begin with the configuration of a start: a run, its report as JSON, or its fields as JSON."
    ),
]
KernelGlob = Annotated[str, typer.Option("--kernel", help="Only kernels whose id (<plugin>:<name>) matches this glob.")]
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target", help="cuda:90, cuda:100, hip:gfx942, ... Default: JITWARM_TARGET, else this machine's GPU."
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Also fail for skipped keys, refused plugins and failing policies.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@app.command()
def plugins(
    config: ConfigFile = None, assignments: Assignments = None, target: TargetName = None, as_json: AsJson = False
) -> None:
    """List the installed plugins, their kernels, the backends, and what was refused."""
    session = Session(_read(config, assignments), _target(target) or Target("cuda", "90"))
    kernels = session.discover()
    if as_json:
        print_json(
            {
                "plugins": [vars(plugin) for plugin in session.registry.plugins.values()],
                "backends": [
                    {"name": b.name, "missing": b.missing(), "toolchain": b.toolchain().full_text()}
                    for b in session.registry.backends
                ],
                "kernels": [{"id": k.id, "backend": k.backend, "distribution": k.distribution} for k in kernels],
                "refused": [vars(refused) for refused in session.registry.refused],
                "left_out": session.registry.left_out,
            }
        )
    else:
        tables.show_plugins(terminal(), session.registry, [(kernel.id, kernel.plugin) for kernel in kernels])
    session.finish()


@app.command()
def plan(
    config: ConfigFile = None,
    assignments: Assignments = None,
    like: Like = None,
    kernel: KernelGlob = "*",
    target: TargetName = None,
    explain: Annotated[
        str, typer.Option("--explain", help="Show which inputs reach each key of the kernels that match.")
    ] = "",
    markdown: Annotated[bool, typer.Option("--markdown", help="With --explain: print a table for a document.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the keys that would be warmed. Compiles nothing."""
    if explain and kernel != "*":
        raise UsageError("--explain names the kernels itself", "leave --kernel out")
    if markdown and not explain:
        raise UsageError("--markdown is the form of an explanation", "add --explain GLOB")
    session = Session(_read(config, assignments, like), _target(target))
    session.plan(explain or kernel, explains=bool(explain))
    session.finish()
    if as_json:
        explanations = {
            kernel_id: [{"key": e.key, "regions": e.regions, "witness": e.witness} for e in found]
            for kernel_id, found in session.explanations.items()
        }
        print_json({**session.report.to_json(), **({"explanations": explanations} if explain else {})})
    elif explain:
        tables.show_explanations(terminal(), session.report, session.explanations, as_markdown=markdown)
    else:
        tables.show_plan(terminal(), session.report)
    if any(row.outcome == "failed" for row in session.report.rows):
        raise typer.Exit(FAILED)


@app.command()
def warm(
    config: ConfigFile = None,
    assignments: Assignments = None,
    like: Like = None,
    kernel: KernelGlob = "*",
    target: TargetName = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Compile or load every key into this user's store (JITWARM_CACHE_DIR), for the GPU of this machine."""
    _show(_report(_read(config, assignments, like), target, kernel), strict=strict, as_json=as_json)


@app.command()
def bake(
    out: Annotated[Path, typer.Option("--out", help="Directory for the artifacts; made if need be.")],
    config: ConfigFile = None,
    assignments: Assignments = None,
    like: Like = None,
    kernel: KernelGlob = "*",
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="cuda:90, hip:gfx942, ...; may be repeated. Default: JITWARM_TARGET."),
    ] = None,
    hosts: Annotated[
        str | None,
        typer.Option(
            "--hosts", help="Build on a cluster: ray, ray://HOST:10001, or tcp://HOST:8786 (Dask's scheduler)."
        ),
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Compile every key for a target into a directory. Needs no GPU, and hides one that is there."""
    os.environ.update(BLIND)
    asked = _read(config, assignments, like)
    targets = list(dict.fromkeys(str(Target.parse(text)) for text in target or ()))
    if len(targets) > 1:
        single = {"--out": out, "--config": config, "--like": like, "--kernel": kernel, "--hosts": hosts}
        given = [*single.items(), *(("--set", text) for text in assignments or ())]
        options = [str(part) for pair in given if pair[1] is not None for part in pair]
        options += ["--strict"] * strict + ["--json"] * as_json
        raise typer.Exit(_bake_each(targets, options, as_json=as_json))
    only = targets[0] if targets else None
    if hosts is None:
        report = _report(asked, only, kernel, out)
    else:
        # What is connected to a cluster also says on stdout how its nodes are.
        with contextlib.redirect_stdout(sys.stderr), clusters.connect(hosts) as executor:
            report = _report(asked, only, kernel, out, executor)
    _show(report, strict=strict, as_json=as_json)


@app.command()
def repro(
    key: Annotated[str, typer.Argument(help="Digest of the key, or its first digits, as reports print it.")],
    root: Annotated[
        Path | None, typer.Option("--root", help="The store of the run that planned it. Default: this user's store.")
    ] = None,
) -> None:
    """Build one key alone, in the foreground, as a run planned it: to see the compiler fail. Touches no store."""
    place = (root or _read(None, None).settings.root).absolute()
    planned = reproduction.find(place, key)
    terminal().print(f"{planned.job.kernel} [{planned.label}] for {planned.job.target}", markup=False, soft_wrap=True)
    terminal().print(f"as planned in {planned.log}", markup=False, soft_wrap=True)
    reproduction.run(planned)


app.command("learn")(learn_command.command)


@app.command()
def doctor(config: ConfigFile = None, target: TargetName = None, as_json: AsJson = False) -> None:
    """Check compilers, backends, caches and target, and say what to do about each finding."""
    asked = _read(config, None)
    problem = ""
    try:
        session = Session(asked, _target(target))
    except TargetError as exc:
        if target or asked.settings.target:
            raise
        problem = exc.message
        session = Session(asked, Target("cuda", "90"))
    session.registry.load_installed()
    findings = list(
        preflight.examine(session.root, None if problem else session.target, problem, session.registry.backends)
    )
    findings += [
        Finding(f"plugin {refused.name}", "error", refused.reason, f"fix {refused.distribution}, or JITWARM_DISABLE")
        for refused in session.registry.refused
    ]
    if as_json:
        print_json({"findings": [vars(finding) for finding in findings]})
    else:
        tables.show_findings(terminal(), findings)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(TOOLCHAIN)


app.command()(probe.ready)
report_commands.add_to(app)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and exit; an error of ours is one clear sentence and its exit code, never a traceback."""
    if sys.platform != "linux":
        _fail(UsageError(f"jitwarm runs on Linux, not on {sys.platform}"), USAGE)
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # compilers' advice to their own users, in the middle of our report
    try:
        app(argv, standalone_mode=True)
    except UsageError as exc:
        _fail(exc, USAGE)
    except ToolchainError as exc:
        _fail(exc, TOOLCHAIN)
    except StoreError as exc:
        _fail(exc, STORE)
    except JitwarmError as exc:
        _fail(exc, FAILED)
    sys.exit(0)


def _end(number: int, _: object) -> NoReturn:
    """Asked to end: clean up on the way out."""
    shut_down(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))


def _bake_each(targets: list[str], options: list[str], *, as_json: bool) -> int:
    """The same bake for each target, one after the other; the exit code is the worst.

    Each in a process of its own: a compiler keeps the first target that it is given.
    """
    documents, codes = [], []
    for target in targets:
        command = [sys.executable, "-m", "jitwarm", "bake", *options, "--target", target]
        done = subprocess.run(command, stdout=subprocess.PIPE if as_json else None, text=True, check=False)  # noqa: S603 - this very command
        codes.append(done.returncode if done.returncode in range(STORE + 1) else FAILED)
        if as_json and done.stdout:
            documents.append(json.loads(done.stdout))
    if as_json:
        print_json(documents)
    return max(codes)


def _report(
    asked: Asked, target: str | None, kernel: str, root: Path | None = None, executor: Executor | None = None
) -> Report:
    """One whole run."""
    with Progress() as progress:
        session = Session(asked, _target(target), root=root, listeners=[progress], executor=executor)
        try:
            return session.run(session.plan(kernel, will_run=True))
        finally:
            session.finish()


def _show(report: Report, *, strict: bool, as_json: bool) -> NoReturn:
    """Print a run's report, and exit with its code."""
    if as_json:
        print_json(report.to_json())
    else:
        tables.show_report(terminal(), report, strict=strict)
    raise typer.Exit(_exit_code(report, strict=strict))


def _exit_code(report: Report, *, strict: bool) -> int:
    """0 if complete; 3 if no key could even be tried, because a backend or a toolchain is missing; else 1."""
    if report.is_complete(strict=strict):
        return 0
    stopped = [row for row in report.rows if row.outcome == "unresolved" and _is_toolchain(row.error or "")]
    return TOOLCHAIN if stopped and len(stopped) == len(report.rows) else FAILED


def _is_toolchain(error: str) -> bool:
    return "is not installed" in error or error.startswith("toolchain missing")


def _read(config: Path | None, assignments: list[str] | None, like: str | None = None) -> Asked:
    base = config_like(like, read(config).settings.root) if like else None
    return read(config, assignments or (), like=base)


def _target(text: str | None) -> Target | None:
    return Target.parse(text) if text else None


def _fail(exc: JitwarmError, code: int) -> NoReturn:
    print(f"jitwarm: {exc}", file=sys.stderr)  # noqa: T201 - this is the program's voice
    sys.exit(code)
