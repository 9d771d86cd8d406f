"""`--jitwarm-report`: what was compiled in a test session, by function, and which tests caused it.

Each test's compiles travel on its report, as plain data: so the answer is the same with and without pytest-xdist, and does not
depend on a worker's clean end.
"""

import json
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from jitwarm.testing.checklist import counted
from jitwarm.testing.compiles import Compile, watched_compiles

_ATTRIBUTE = "jitwarm_compiles"
_OUTSIDE = "(collection)"
_N_TESTS = 3


class CompileReport:
    """A plugin of one pytest session; in workers of xdist it only watches."""

    def __init__(self, config: pytest.Config, file: Path | None) -> None:
        self._config = config
        self._file = file
        self._test = _OUTSIDE
        self._unsent: list[dict[str, Any]] = []
        self._compiles: list[dict[str, Any]] = []
        self._problem = ""
        self._stack = ExitStack()
        self._stack.enter_context(watched_compiles(self._see))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """What compiles now is this test's, in its fixtures and threads, too."""
        self._test = item.nodeid
        try:
            return (yield)
        finally:
            self._test = _OUTSIDE

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Send what was seen so far."""
        report = yield
        sent, self._unsent = self._unsent, []
        if sent:
            setattr(report, _ATTRIBUTE, sent)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Receive it, perhaps in another process."""
        self._compiles += getattr(report, _ATTRIBUTE, ())

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Stop watching, and write the file."""
        self._stack.close()
        self._compiles += self._unsent
        if self._file and not hasattr(self._config, "workerinput"):
            try:
                self._file.write_text(json.dumps(document(self._compiles), indent=1) + "\n", encoding="utf-8")
            except OSError as exc:
                self._problem = f"{self._file} cannot be written: {exc.strerror}"

    def pytest_unconfigure(self) -> None:
        """Stop watching, also where the session never began."""
        self._stack.close()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """A short section."""
        found = document(self._compiles)
        title = f"jitwarm: {counted(found['n_compiles'], 'compile')}, {found['seconds']:.1f} s"
        terminalreporter.section(title)
        for line in lines(found):
            terminalreporter.write_line(line)
        if self._file or self._problem:
            terminalreporter.write_line(self._problem or f"written to {self._file}")

    def _see(self, compiled: Compile) -> None:
        self._unsent.append({**compiled.to_json(), "test": self._test})


def document(compiles: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The documented document; plain data."""
    every = list(compiles)
    real = [c for c in every if c["what"] != "reload"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for compiled in every:
        groups.setdefault((compiled["backend"], compiled["function"]), []).append(compiled)
    functions = [
        {
            "backend": backend,
            "function": function,
            "n_compiles": sum(c["what"] != "reload" for c in own),
            "n_reloads": sum(c["what"] == "reload" for c in own),
            "seconds": _seconds(c for c in own if c["what"] != "reload"),
            "tests": sorted({c["test"] for c in own}),
        }
        for (backend, function), own in groups.items()
    ]
    return {
        "v": 1,
        "n_compiles": len(real),
        "n_reloads": len(every) - len(real),
        "seconds": _seconds(real),
        "functions": sorted(functions, key=lambda f: (-f["seconds"], f["function"])),
        "compiles": every,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The document for people: one function each, the longest first."""
    if not found["functions"]:
        return ["no kernel was compiled in this process, or in workers of this session"]
    rows = [("backend", "function", "compiles", "reloads", "seconds", "tests")]
    for f in found["functions"]:
        counts = (str(f["n_compiles"]), str(f["n_reloads"]), f"{f['seconds']:.2f}")
        rows.append((f["backend"], f["function"], *counts, _few(f["tests"])))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), row[1].ljust(widths[1])]
            + [row[column].rjust(widths[column]) for column in (2, 3, 4)]
            + [row[5]]
        )
        for row in rows
    ]


def _seconds(compiles: Iterable[dict[str, Any]]) -> float:
    return round(float(sum(c["seconds"] for c in compiles)), 4)


def _few(tests: list[str]) -> str:
    more = f" and {len(tests) - _N_TESTS} more" if len(tests) > _N_TESTS else ""
    return ", ".join(tests[:_N_TESTS]) + more
