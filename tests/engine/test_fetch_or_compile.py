"""A kernel that fetches what was built elsewhere, or compiles it: how its keys became warm is told as it was, by any process."""

import hashlib
import http.server
import json
import os
import shutil
import threading
from functools import partial
from pathlib import Path

import kits
import pytest

from jitwarm import FetchError, Target, WarmupConfig, artifact_dir, fetch
from jitwarm.errors import TargetError
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def place(tmp_path):
    """Where modules lie that were built elsewhere: one for the factor 3."""
    from ahead_kernels import compile_c

    directory = tmp_path / "place"
    directory.mkdir()
    compile_c(3, directory / "scaled3.so")
    return directory


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def run(tmp_path, place, monkeypatch):
    """One run over one store: outcomes by kernel and factor, the report, and the events."""
    kits.install(tmp_path / "site", "ahead_kernels", (SUPPORT / "ahead_kernels.py").read_text(), plugin="ahead")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    digest = sha256(place / "scaled3.so")

    def run(*factors, isolate=True):
        extra = {"ahead": {"place": str(place), "sha256": digest, "factors": list(factors)}}
        asked = Asked(WarmupConfig(extra=extra), Settings(plugins=("ahead",), isolate=isolate))
        events = []
        session = Session(asked, Target("cuda", "90"), root=tmp_path / "store", listeners=[events.append])
        report = session.run(session.plan())
        session.finish()
        found = [(kernel.id, row.outcome) for kernel in report.kernels.values() for row in kernel.rows]
        return found, report, events

    return run


def scaled(*outcomes):
    return [("ahead:scaled", outcome) for outcome in outcomes]


@pytest.mark.parametrize("isolate", [True, False])
def test_each_key_is_told_as_it_became_warm(run, place, tmp_path, isolate):
    """3 is there, 5 is damaged, 7 is not there; of the other kernel's key nobody knows."""
    (place / "scaled5.so").write_bytes(b"\x7fELF and nothing more")
    unresolved = [("ahead:undecided", "unresolved")] * 3
    found, report, events = run(3, 5, 7, isolate=isolate)
    assert found == [*scaled("loaded", "compiled", "compiled"), *unresolved]
    assert report.n_compiles == 2
    builders = {event["pid"] for event in _children(tmp_path) if event["event"] == "job_end"}
    assert bool(builders) == isolate
    assert os.getpid() not in builders
    assert len(list((tmp_path / "store" / "manifest").glob("*.json"))) == 3

    shutil.rmtree(place)  # what was fetched is in the store
    found, report, events = run(3, 5, 7, isolate=isolate)
    assert found == [*scaled("loaded", "loaded", "loaded"), *unresolved]
    assert report.n_compiles == 0
    assert "load_recompiled" not in {event["event"] for event in events}


def test_what_is_damaged_in_the_store_is_fetched_anew(run, place, tmp_path):
    run(3)
    [stored] = (tmp_path / "store" / "objects").glob("*/scaled.so")
    content = stored.read_bytes()
    stored.unlink()  # this process has mapped it
    stored.write_bytes(content[:-1])
    found, _, events = run(3)
    assert found[:1] == scaled("loaded")
    assert "entry_damaged" in {event["event"] for event in events}
    assert sha256(stored) == sha256(place / "scaled3.so")


def _children(directory):
    """Events of processes other than this one."""
    logs = [file.read_text().splitlines() for file in (directory / "store" / "events").glob("*/*.jsonl")]
    return [event for log in logs for line in log if (event := json.loads(line))["pid"] != os.getpid()]


def test_the_directory_of_a_key_is_there_while_it_is_compiled_only():
    with pytest.raises(TargetError, match="no key here"):
        artifact_dir()


# --- fetch -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(place):
    """The same place over HTTP."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(place))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_a_file_is_fetched_from_a_path_and_a_url(place, server, tmp_path):
    digest = sha256(place / "scaled3.so")
    for n, source in enumerate((str(place / "scaled3.so"), (place / "scaled3.so").as_uri(), f"{server}/scaled3.so")):
        assert sha256(fetch(source, tmp_path / f"{n}.so", sha256=digest.upper())) == digest


@pytest.mark.parametrize("name", ["scaled3.so", "not-there.so"])
def test_what_cannot_be_had_leaves_what_was_there(place, server, tmp_path, name):
    """A file that is not what was asked for, or none: the old one stays, and no piece of a new one."""
    to = tmp_path / "to" / "scaled.so"
    to.parent.mkdir()
    to.write_text("old")
    for source in (str(place / name), f"{server}/{name}"):
        with pytest.raises(FetchError, match="cannot be fetched") as raised:
            fetch(source, to, sha256="0" * 64)
        assert raised.value.hint
        assert [file.read_text() for file in to.parent.iterdir()] == ["old"]


def test_what_is_there_already_is_not_fetched_again(place, tmp_path):
    digest = sha256(place / "scaled3.so")
    assert fetch(str(tmp_path / "nowhere"), place / "scaled3.so", sha256=digest) == place / "scaled3.so"


def test_whatever_keeps_it_from_being_fetched_is_one_error(place, tmp_path):
    """A host that cannot be reached, a directory that is not there, a scheme that nobody knows."""
    digest = sha256(place / "scaled3.so")
    for source, to in (
        ("http://127.0.0.1:9/scaled3.so", tmp_path / "scaled.so"),
        (str(place / "scaled3.so"), tmp_path / "no such directory" / "scaled.so"),
        ("nonsense://x", tmp_path / "scaled.so"),
    ):
        with pytest.raises(FetchError):
            fetch(source, to, sha256=digest, timeout_s=5)
