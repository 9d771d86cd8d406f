"""The pytest plugin: the marker and fixture `no_cold_compiles`, the fixture `jitwarm_warm`, and `--jitwarm-report`.

pytest imports this at every start, wherever jitwarm is installed. So nothing of jitwarm is imported before a test or an option
asks for it.
"""

# ruff: noqa: PLC0415 - as said above
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jitwarm.contract.config import WarmupConfig
    from jitwarm.engine.report import Report
    from jitwarm.testing.compiles import ColdCompiles

_MARKER = "no_cold_compiles"
_ARGUMENTS = ("allow", "allow_reloads")
_WATCH = pytest.StashKey["ColdCompiles"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--jitwarm-report`."""
    parser.getgroup("jitwarm").addoption(
        "--jitwarm-report",
        nargs="?",
        const="",
        metavar="FILE",
        help="list which kernels were compiled, and in which tests; with =FILE also as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker; where a report is asked for, begin to watch."""
    config.addinivalue_line(
        "markers",
        "no_cold_compiles(allow=(), allow_reloads=False): the test fails if a kernel compiles while it runs; "
        "`allow` are globs over module:qualname of functions that may",
    )
    file = config.getoption("--jitwarm-report")
    if file is not None:
        from jitwarm.testing.compile_report import CompileReport

        config.pluginmanager.register(CompileReport(config, _report_file(file, config)), "jitwarm-report")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Refuse a marker with arguments that do not exist, before any test runs."""
    for mark in item.iter_markers(_MARKER):
        unknown = [repr(value) for value in mark.args] + [name for name in mark.kwargs if name not in _ARGUMENTS]
        if unknown:
            raise pytest.UsageError(
                f"{item.nodeid}: no_cold_compiles takes {' and '.join(_ARGUMENTS)} by name, not {', '.join(unknown)}"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Watch the test itself; what its fixtures compile is their business: they may warm."""
    if item.get_closest_marker(_MARKER) is None and _WATCH not in item.stash:
        return (yield)
    watch = item.stash.setdefault(_WATCH, _watch_of(item))
    try:
        with watch.watching():
            answer = yield
    except BaseException:
        if watch.compiles:
            item.add_report_section("call", "jitwarm", watch.text())
        raise
    finally:
        del item.stash[_WATCH]  # a plugin may run the same item again
    if watch.compiles:
        pytest.fail(f"{watch.text()}\n  hint: {watch.hint()}", pytrace=False)
    return answer


@pytest.fixture
def no_cold_compiles(request: pytest.FixtureRequest) -> "ColdCompiles":
    """The test fails if anything compiles while it runs.

    Gives an object whose `compiles` is what has counted so far; within its `.warming()` nothing counts.
    """
    return request.node.stash.setdefault(_WATCH, _watch_of(request.node))  # type: ignore[no-any-return]  # of pytest's stash


@pytest.fixture
def jitwarm_warm(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Callable[..., Report]]":
    """A function that makes kernels of installed plugins warm in this process, for one test.

    `jitwarm_warm(kernels="*", config=None, *, target=None)` takes what `jitwarm.warm` takes and gives its report; it raises if a
    key is not warm. The store is a temporary one, of the whole test session: what one test has built, another loads.
    """
    before = dict(os.environ)

    def warm(
        kernels: str = "*", config: "WarmupConfig | Mapping[str, Any] | None" = None, *, target: str | None = None
    ) -> "Report":
        from jitwarm.testing.warming import warm_in

        return warm_in(tmp_path_factory.getbasetemp() / "jitwarm-store", kernels, config, target)

    yield warm
    os.environ.clear()  # the compilers' caches lie where they lay before
    os.environ.update(before)


def _watch_of(item: Any) -> "ColdCompiles":
    """As the markers of a test, its class and its module say together."""
    from jitwarm.testing.compiles import ColdCompiles

    allowed: list[str] = []
    for mark in item.iter_markers(_MARKER):
        allow = mark.kwargs.get("allow", ())
        allowed += [allow] if isinstance(allow, str) else allow
    return ColdCompiles(
        allowed, allow_reloads=any(mark.kwargs.get("allow_reloads") for mark in item.iter_markers(_MARKER))
    )


def _report_file(given: str, config: pytest.Config) -> Path | None:
    """Where the JSON goes. An option with an optional value takes the next argument, which may have been meant as a test."""
    if not given:
        return None
    file = config.invocation_params.dir / given
    if file.is_dir() or "::" in given or file.suffix == ".py":
        raise pytest.UsageError(
            f"--jitwarm-report would write to {given}, which are tests: write --jitwarm-report={given}.json, or give it last"
        )
    if not file.parent.is_dir():
        raise pytest.UsageError(f"--jitwarm-report={given}: there is no directory {file.parent}")
    return file
