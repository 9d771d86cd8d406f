"""The ready file, as probes see it: written by real processes, read by the command."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import wait_until

import jitwarm
from jitwarm import readiness
from jitwarm.readiness import ReadyFile

# A rank: each line on stdin is one event, answered when it was taken in.
RANK = """
import json, sys
from pathlib import Path
from jitwarm.readiness import ReadyFile
path, rank, n_ranks = sys.argv[1:]
told = ReadyFile(Path(path), int(rank), int(n_ranks), lambda text: print(text, file=sys.stderr))
for line in sys.stdin:
    told(json.loads(line))
    print("taken", flush=True)
"""
START = {"event": "run_start", "run": "r"}
PLANNED = {"event": "key_planned", "run": "r"}
BEGUN = {"event": "key_start", "run": "r", "kernel": "site:rope", "label": "n=3"}
ENDED = {"event": "key_end", "run": "r", "outcome": "compiled"}
OVER = {"event": "run_end", "run": "r"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ready.json"


@pytest.fixture
def start_rank(path):
    """Start a rank; the function that it returns tells it events."""
    ranks = []

    def start(rank=0, n_ranks=1, lineage=""):
        process = subprocess.Popen(
            [sys.executable, "-c", RANK, str(path), str(rank), str(n_ranks)],
            env={**os.environ, "JITWARM_LINEAGE": lineage},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        ranks.append(process)

        def tell(*events):
            for event in events:
                print(json.dumps(event), file=process.stdin, flush=True)
                assert process.stdout.readline() == "taken\n"
            return process

        return tell

    yield start
    for process in ranks:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=60)


def document(path):
    return json.loads(path.read_text())


def test_the_file_says_how_far_it_is_and_then_that_it_is_ready(start_rank, path):
    tell = start_rank()
    tell(START, PLANNED, PLANNED, BEGUN, ENDED, BEGUN)
    wait_until(lambda: path.exists() and document(path)["n_done"] == 1, "one key is done")
    wait_until(lambda: document(path)["current"] == "site:rope [n=3]", "the current key is told")
    found = document(path)
    assert (found["ready"], found["phase"], found["n_keys"]) == (False, "warm-up", 2)
    tell(ENDED, OVER)
    found = document(path)
    assert (found["ready"], found["phase"], found["n_done"], found["outcomes"]) == (True, "done", 2, {"compiled": 2})
    assert sorted(file.name for file in path.parent.iterdir()) == [".ready.json.lock", "ready.json"]


def test_a_node_is_ready_when_all_its_ranks_are_and_shows_the_slowest(start_rank, path):
    first, second = start_rank(0, 2, "aa"), start_rank(1, 2, "aa")
    first(START, PLANNED, PLANNED, BEGUN, ENDED, BEGUN, ENDED, OVER)
    assert document(path)["ready"] is False
    second(START, PLANNED, PLANNED, BEGUN, ENDED)
    wait_until(lambda: document(path)["n_done"] == 1, "the slower rank is shown")
    assert [state["phase"] for state in document(path)["ranks"]] == ["done", "warm-up"]
    second(BEGUN, ENDED, OVER)
    assert document(path)["ready"] is True


def test_many_ranks_that_end_at_once_lose_no_ones_word(start_rank, path):
    ranks = [start_rank(rank, 6, "aa") for rank in range(6)]
    with ThreadPoolExecutor(len(ranks)) as at_once:
        list(at_once.map(lambda tell: tell(START, PLANNED, BEGUN, ENDED, OVER), ranks))
    found = document(path)
    assert [state["phase"] for state in found["ranks"]] == ["done"] * 6
    assert found["ready"] is True


def test_the_next_start_takes_nothing_over(start_rank, path):
    start_rank(0, 1, "aa")(START, PLANNED, BEGUN, ENDED, OVER)
    assert document(path)["ready"] is True
    start_rank(0, 2, "bb")(START, PLANNED)
    wait_until(lambda: document(path)["start"] == "bb", "the file is the new start's")
    assert (document(path)["ready"], len(document(path)["ranks"])) == (False, 1)


def test_a_rank_that_warms_up_again_while_it_serves_stays_ready(start_rank, path):
    start_rank(0, 1, "aa")(START, PLANNED, BEGUN, ENDED, OVER)
    start_rank(1, 1, "aa")(START, PLANNED, BEGUN)
    wait_until(lambda: len(document(path)["ranks"]) == 2, "the new rank is there")
    assert document(path)["ready"] is True


def test_what_a_dead_server_left_is_forgotten_and_a_living_ones_is_not(start_rank, path):
    process = start_rank(0, 1, "aa")(START, PLANNED, OVER)
    readiness.forget(path)
    assert document(path)["ready"] is True
    process.stdin.close()
    process.wait(timeout=60)
    process.stdin = open(os.devnull, "w")  # noqa: PTH123, SIM115 - closed by the fixture
    readiness.forget(path)
    assert not path.exists()
    readiness.forget(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"ready": true}', "root:x:0:0"])
def test_a_file_that_is_no_ready_file_is_not_removed(path, content):
    path.write_text(content)
    readiness.forget(path)
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_one_warning_and_no_end(tmp_path):
    told = []
    ready = ReadyFile(tmp_path / "none" / "ready.json", complain=told.append)
    for event in (START, PLANNED, BEGUN, ENDED, OVER):
        ready(event)
    [warning] = told
    assert str(tmp_path / "none" / "ready.json") in warning
    assert "No such file or directory" in warning


def test_who_gives_up_is_ready_and_says_why(path):
    ready = ReadyFile(path)
    ready(START)
    readiness.give_up(path, "no target")
    ready(OVER)  # of the run that it gave up
    found = document(path)
    assert (found["ready"], found["phase"], found["error"], len(found["ranks"])) == (True, "no warm-up", "no target", 1)


def test_warm_keeps_the_file_that_the_variable_names(path, tmp_path, monkeypatch):
    monkeypatch.setenv("JITWARM_READY_FILE", str(path))
    monkeypatch.setenv("JITWARM_PLUGINS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    jitwarm.warm(target="cuda:90")
    assert document(path)["ready"] is True


# --- the command -------------------------------------------------------------------------------------------------------


def test_the_command_tells_ready_from_not_yet(start_rank, path, cli):
    done = cli("ready", path)
    assert (done.returncode, "no warm-up has begun" in done.stdout) == (1, True)
    tell = start_rank()
    tell(START, PLANNED, PLANNED, BEGUN)
    wait_until(lambda: path.exists() and document(path)["current"], "a key is begun")
    done = cli("ready", path)
    assert done.returncode == 1
    assert re.match(r"not ready, last progress \d+ s ago: warm-up, 0 of 2 keys; now site:rope \[n=3\]", done.stdout)
    tell(ENDED, BEGUN, ENDED, OVER)
    done = cli("ready", path)
    assert (done.returncode, done.stdout) == (0, "ready: done, 2 of 2 keys\n")


def test_the_command_tells_progress_from_a_hang(start_rank, path, cli):
    start_rank()(START, PLANNED, BEGUN)
    wait_until(lambda: path.exists() and document(path)["current"], "a key is begun")
    assert cli("ready", path, "--max-age-s", 600).returncode == 0
    hours_ago = time.time() - 7200
    os.utime(path, (hours_ago, hours_ago))
    assert cli("ready", path, "--max-age-s", 600).returncode == 1


def test_the_command_refuses_what_it_cannot_read(cli, tmp_path):
    done = cli("ready", tmp_path)
    assert done.returncode == 2
    assert "Is a directory" in done.stderr
    assert cli("ready", tmp_path / "x", "--max-age-s", "soon").returncode == 2


def test_what_probes_do_without_python(start_rank, path):
    """As docs/how-to/probe-readiness.md has it."""
    is_ready = f"""grep -q '"ready": true' {path}"""
    progresses = f"{is_ready} || find {path} -mmin -15 | grep -q ."
    shell = lambda line: subprocess.run(["sh", "-c", line], check=False).returncode  # noqa: E731
    tell = start_rank()
    assert shell(progresses) != 0
    tell(START, PLANNED, BEGUN)
    wait_until(path.exists, "the file is there")
    assert (shell(is_ready), shell(progresses)) == (1, 0)
    hours_ago = time.time() - 7200
    os.utime(path, (hours_ago, hours_ago))
    assert shell(progresses) != 0
    tell(ENDED, OVER)
    assert shell(is_ready) == 0


def test_the_file_is_readable_for_a_probe_of_another_user(path):
    readiness.give_up(path, "no target")
    assert Path(path).stat().st_mode & 0o044 == 0o044
