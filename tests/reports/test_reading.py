"""Logs as they are found: torn, foreign, empty, no logs at all; and runs by path, by name, or the newest."""

import json
import os

import made_logs
import pytest

from jitwarm.errors import UsageError
from jitwarm.reports.document import document
from jitwarm.reports.folding import read_starts


@pytest.fixture
def run(tmp_path):
    return made_logs.make(tmp_path / "events" / "made", n_keys=20)


def comparable(start):
    """The document without what counts lines."""
    return {name: value for name, value in document(start).items() if name not in ("n_unreadable", "n_foreign")}


def read(tmp_path, *names):
    (start,) = read_starts([str(name) for name in names], tmp_path)
    return start


def append(run, text):
    with (run / "node1-1000.jsonl").open("a") as file:
        file.write(text)


def test_a_line_that_a_killed_process_did_not_end_is_counted_and_changes_nothing(tmp_path, run):
    before = read(tmp_path, run)
    append(run, '{"v": 1, "t_ns": 17900000000')
    after = read(tmp_path, run)
    assert (before.n_unreadable, after.n_unreadable) == (0, 1)
    assert comparable(after) == comparable(before)


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "key_end", "kernel": ["a"], "digest": "d", "outcome": "failed", "error": None, "seconds": 0.1},
        {
            "event": "key_end",
            "kernel": "acme:kernel_0",
            "digest": "d",
            "outcome": "failed",
            "error": None,
            "seconds": "long",
        },
        {
            "event": "key_end",
            "kernel": "acme:kernel_0",
            "digest": "d",
            "outcome": "melted",
            "error": None,
            "seconds": 1,
        },
        {
            "event": "key_end",
            "kernel": "never:planned",
            "digest": "d",
            "outcome": "failed",
            "error": None,
            "seconds": 1,
        },
        {"event": "unexpected_compile", "seconds": 3.0},
        {"event": "key_used", "kernel": "never:planned", "digest": "d"},
        {"event": "config", "config": "none"},
        {"event": 7},
    ],
)
def test_an_event_of_a_wrong_shape_is_counted_and_changes_nothing(tmp_path, run, fields):
    before = read(tmp_path, run)
    ns = made_logs.T0_NS + 10**9, made_logs.MONO_NS + 10**9
    append(run, json.dumps({"v": 1, "t_ns": ns[0], "mono_ns": ns[1], "run": "made", "pid": 1000, **fields}) + "\n")
    after = read(tmp_path, run)
    assert after.n_unreadable > 0
    assert comparable(after) == comparable(before)


def test_events_that_nobody_knows_yet_and_other_versions_change_nothing(tmp_path, run):
    before = read(tmp_path, run)
    always = {"t_ns": made_logs.T0_NS + 10**9, "mono_ns": made_logs.MONO_NS + 10**9, "run": "made", "pid": 1000}
    append(run, json.dumps({"v": 1, **always, "event": "unheard_of", "kernel": "acme:kernel_0"}) + "\n")
    append(run, json.dumps({"v": 2, **always, "event": "key_end", "kernel": 3}) + "\n")
    after = read(tmp_path, run)
    assert (after.n_unreadable, after.n_foreign) == (0, 1)
    assert comparable(after) == comparable(before)


def test_files_of_one_run_are_one_start_and_others_are_others(tmp_path, run):
    other = made_logs.make(tmp_path / "events" / "other", n_keys=10, run="other")
    files = [str(file) for directory in (run, other) for file in sorted(directory.glob("*.jsonl"))]
    starts = read_starts(files, tmp_path)
    assert [(start.name, len(start.keys), len(start.processes)) for start in starts] == [
        ("made", 20, 2),
        ("other", 10, 2),
    ]


def test_a_run_is_found_by_name_by_store_and_as_the_newest(tmp_path, run):
    older = made_logs.make(tmp_path / "events" / "older", n_keys=5, run="older")
    for file in older.iterdir():
        os.utime(file, (1, 1))
    assert read(tmp_path, "older").name == "older"
    assert read(tmp_path).name == "made"
    assert read("/nowhere", tmp_path).name == "made"
    assert read("/nowhere", run).source == str(run)


def test_what_is_no_run_is_told_with_what_there_is(tmp_path, run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "zero.jsonl").touch()
    (tmp_path / "text.jsonl").write_text("hello\n")
    (tmp_path / "report.json").write_text('{"n_keys": 3}\n')
    (tmp_path / "newer.jsonl").write_text('{"v": 9, "event": "run_start"}\n')
    worker = next(run.glob("node1-2*.jsonl"))
    for name, words in {
        "nothing": ("there is no run 'nothing'", "made"),
        tmp_path / "empty": ("holds no event log", "<store>/events/<run>"),
        tmp_path / "zero.jsonl": ("is empty",),
        tmp_path / "text.jsonl": ("is no event log", "jitwarm check"),
        tmp_path / "report.json": ("is no event log", "jitwarm check"),
        tmp_path / "newer.jsonl": ("another version", "the jitwarm that wrote it"),
        worker: ("log of a compile process alone", "run's directory"),
    }.items():
        with pytest.raises(UsageError) as caught:
            read(tmp_path, name)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(UsageError, match="no run has left an event log"):
        read(tmp_path / "empty")


def test_a_run_is_read_while_it_is_written(tmp_path, run):
    """Of a process that is killed, or goes on, the report says what is known and that it is not the end."""
    file = run / "node1-1001.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    last = next(i for i, line in enumerate(lines) if '"key_end"' in line)
    file.write_text("".join(lines[:last]))
    start = read(tmp_path, run)
    assert not start.is_complete
    assert [process.is_complete for process in start.processes] == [True, False]
    assert all(
        key.outcome is None or key.outcome in ("failed", "timed_out", "unresolved") for key in start.keys.values()
    )
    assert len(start.cold) == 20
