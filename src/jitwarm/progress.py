"""What a person sees while a run goes on: a live line on a terminal, else a log line every few seconds. Fed by events."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

_LINE_EVERY_S = 5.0
_LABEL_WIDTH = 60


class Progress:
    """Shows a run's progress on `stream`; use it as a context manager and as a listener of events.

    Args:
        stream: stderr, so that reports and JSON on stdout stay clean.
        enabled: False shows nothing.
    """

    def __init__(self, stream: TextIO | None = None, *, enabled: bool = True) -> None:
        self._stream = stream or sys.stderr
        self._enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._n_keys = self._n_done = self._n_compiled = self._n_loaded = 0
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._enabled and self._stream.isatty():
            self._bar = _bar(self._stream)
            self._task = self._bar.add_task("", total=None, counts="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event into account."""
        name = event["event"]
        if name == "key_planned":
            self._n_keys += 1
        elif name == "key_end":
            self._n_done += 1
            self._n_compiled += event["outcome"] == "compiled"
            self._n_loaded += event["outcome"] in ("loaded", "already_warm")
            self._show("")
        elif name == "hosts_unavailable":
            self._say(f"jitwarm: the hosts are not available, the rest is built here: {event['error']}")
        elif name == "build_start":
            self._show(f"{event['kernel']}: building")
        elif name == "key_start":
            self._show(f"{event['kernel']} [{event['label'][:_LABEL_WIDTH]}]")

    def _say(self, text: str) -> None:
        """Something that must be seen."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        elif self._enabled:
            print(text, file=self._stream, flush=True)

    def _show(self, current: str) -> None:
        counts = f"{self._n_compiled} compiled, {self._n_loaded} loaded"
        if self._bar is not None:
            self._bar.update(self._task, total=self._n_keys, completed=self._n_done, description=current, counts=counts)
        elif self._enabled and current and time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            elapsed = self._last_line - self._start
            print(
                f"jitwarm: {self._n_done}/{self._n_keys} keys, {counts}, {elapsed:.0f} s; now {current}",
                file=self._stream,
                flush=True,
            )


def _bar(stream: TextIO) -> Any:
    from rich.console import Console  # noqa: PLC0415 - only a run that shows something needs it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - as above

    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", style="dim", markup=False),
        console=Console(file=stream),
        transient=True,
    )
