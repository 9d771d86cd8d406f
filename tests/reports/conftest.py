"""Starts to report on: real ones of the example package, made ones of any size, and a real browser to look at pages."""

import shutil
from contextlib import contextmanager

import made_logs
import pytest
from node import ranks

from jitwarm.reports.folding import read_starts

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """A store in which two ranks warmed the example package for cuda:90, twice: the runs `cold` and `again`."""
    for compiler in ("triton", "cutlass", "tilelang"):
        pytest.importorskip(compiler)
    root = tmp_path_factory.mktemp("real") / "store"
    for name in ("cold", "again"):
        with ranks(root, 2) as started:
            ended = [process.communicate(timeout=500) and process.returncode for process in started]
        assert ended == [0, 0]
        (root / "events" / "run").rename(root / "events" / name)
        shutil.rmtree(f"{root}.barrier")
    return root


@pytest.fixture
def made(tmp_path):
    """Make the log of a start, and read it."""

    def make(name="made", **how):
        (start,) = read_starts([str(made_logs.make(tmp_path / name, run=name, **how))], tmp_path)
        return start

    return make


@pytest.fixture(scope="session")
def chromium():
    """Chromium, driven by playwright: Debian's, else playwright's own."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
        try:
            browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as exc:
            pytest.skip(
                f"no Chromium: apt-get install chromium, or playwright install chromium ({exc.message.splitlines()[0]})"
            )
        yield browser
        browser.close()


@pytest.fixture
def look(chromium):
    """Open a page as a file, at a width and in a colour scheme; it must neither complain nor ask for anything else."""

    @contextmanager
    def opened(file, width=1440, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready=yes]", timeout=60_000)
        yield page
        assert said == []
        assert asked == [file.as_uri()]
        context.close()

    return opened
