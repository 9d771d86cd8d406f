"""Something that is to happen when a package is imported: once, at its import, whatever is asked about it before."""

import contextlib
import importlib
import importlib.util
import sys

import pytest

from jitwarm.patches import when_imported

NAME = "a_late_package"


@pytest.fixture(autouse=True)
def _package(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield
    sys.modules.pop(NAME, None)
    assert sys.meta_path == before


@pytest.fixture
def entered():
    """What happens, and the values of the package that it sees."""
    seen = []

    @contextlib.contextmanager
    def then():
        seen.append(sys.modules[NAME].VALUE)
        yield
        seen.append("left")

    return seen, then


def test_it_happens_after_the_import_and_ends_at_the_end(entered):
    seen, then = entered
    with when_imported(NAME, then):
        assert seen == []
        importlib.import_module(NAME)
        assert seen == [1]
    assert seen == [1, "left"]


def test_to_ask_whether_the_package_is_there_changes_nothing(entered):
    """Servers ask so about every optional package, long before they import it."""
    seen, then = entered
    with when_imported(NAME, then):
        for _ in range(3):
            assert importlib.util.find_spec(NAME) is not None
        importlib.import_module(NAME)
        assert seen == [1]


def test_two_may_wait_for_one_package(entered):
    seen, then = entered
    with when_imported(NAME, then), when_imported(NAME, then):
        importlib.util.find_spec(NAME)
        importlib.import_module(NAME)
        assert seen == [1, 1]


def test_an_import_that_fails_is_waited_for_again(entered, tmp_path):
    seen, then = entered
    with when_imported(NAME, then):
        (tmp_path / f"{NAME}.py").write_text("raise ImportError('not yet, not at all')\n")
        with pytest.raises(ImportError):
            importlib.import_module(NAME)
        (tmp_path / f"{NAME}.py").write_text("VALUE = 2\n")
        importlib.invalidate_caches()
        importlib.import_module(NAME)
        assert seen == [2]


def test_the_package_keeps_its_own_loader(entered):
    _, then = entered
    with when_imported(NAME, then):
        module = importlib.import_module(NAME)
    assert type(module.__loader__).__module__ != "jitwarm.patches"
    assert module.__spec__.loader is module.__loader__
