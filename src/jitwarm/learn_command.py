"""`jitwarm learn`, the command."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from jitwarm.contract.learned import FILE_NAME, Learned, LearnedFunction, LearnedKey, Seen
from jitwarm.contract.target import Target
from jitwarm.errors import StoreError, UsageError
from jitwarm.learning import Declared, Lesson, learn, run_of, to_toml
from jitwarm.settings import Settings, read, read_learned
from jitwarm.store import read_records


def command(
    stores: Annotated[
        list[Path] | None,
        typer.Argument(help="Stores in which servers recorded (JITWARM_MONITOR=record). Default: this user's store."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The file; what it holds already is kept.")] = Path(FILE_NAME),
    config: Annotated[
        Path | None, typer.Option("--config", help="What was served. Default: as the first store's newest run says.")
    ] = None,
    target: Annotated[str | None, typer.Option("--target", help="For which GPU. Default: likewise.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if the file would change.")
    ] = False,
) -> None:
    """Turn what compiled while serving into a file that the next start, bake and CI warm as well."""
    roots = [root.absolute() for root in stores or [read().settings.root]]
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"{root} is no store", "name the directory that JITWARM_CACHE_DIR named to the servers")
    known = read_learned(Settings(learned_keys=str(out))) if out.exists() else Learned()
    lesson = _lesson(roots, known, config, target)
    text = to_toml(lesson.learned)
    _show(lesson, out)
    is_same = out.exists() and out.read_text(encoding="utf-8") == text
    if check:
        raise typer.Exit(0 if is_same or not (lesson.new or lesson.covered) else 1)
    if not is_same and (out.exists() or lesson.new):
        _write(out, text)


def _lesson(roots: list[Path], known: Learned, config: Path | None, target: str | None) -> Lesson:
    if config is None or target is None:
        served, served_on = run_of(roots[0])
    if config is not None:
        served = read(config).config
    declared = Declared(served, read().settings, Target.parse(target or served_on))
    try:
        return learn((record for root in roots for record in read_records(root)), known, declared)
    finally:
        declared.close()


def _show(lesson: Lesson, out: Path) -> None:
    console = Console()
    n = len(lesson.learned.keys) + len(lesson.learned.functions)
    console.print(f"{lesson.n_records} compiles were recorded; {n} entries in {out}", soft_wrap=True, highlight=False)
    for entry in lesson.new:
        console.print(f"[green]new[/]      {escape(_named(entry))}", soft_wrap=True, highlight=False)
    for entry in lesson.covered:
        console.print(f"[dim]declared[/] {escape(_named(entry))}", soft_wrap=True, highlight=False)
    for entry in lesson.learned.functions:
        if not entry.replay:
            console.print(
                f"[yellow]cannot be made again[/] {escape(_named(entry))}: declare a kernel for it",
                soft_wrap=True,
                highlight=False,
            )


def _named(entry: Seen) -> str:
    name = entry.kernel if isinstance(entry, LearnedKey) else ""
    name = name or (entry.function if isinstance(entry, LearnedFunction) else "")
    return (
        f"{name} [{entry.label}] compiled {entry.n} time{'s' * (entry.n != 1)} on {', '.join(entry.hosts)}: {entry.why}"
    )


def _write(out: Path, text: str) -> None:
    """By rename, so that a start in the same moment reads the old file or the new one.

    Raises:
        StoreError: It cannot be written.
    """
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(dir=out.absolute().parent, prefix=f".{out.name}.")
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(out)
    except OSError as exc:
        raise StoreError(f"cannot write {out}: {exc.strerror}", "name another file: --out") from exc
