"""The JSON documents are those of `docs/reference/reports.md`, name by name; a comparison says what changed and nothing else."""

import json
import re
from pathlib import Path

import pytest

from jitwarm.reports.difference import difference
from jitwarm.reports.document import document, to_text
from jitwarm.reports.folding import read_starts

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "reports.md"


def documented(heading):
    """The names in the first column of the table under a heading."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([\w.\[\]]+)`", line.split("|")[1])
    }


def test_every_name_of_the_document_is_documented_and_the_other_way_round(made):
    found = document(made(n_keys=400))
    found["unlisted"].append({"kernel": "", "outcome": "", "error": ""})
    found["incidents"].append({"at_s": 0, "process": "", "event": "", "text": ""})
    found["modules_loaded"] = found["reloaded"]
    found["builders"] = found["processes"]
    rows = {name for name, value in found.items() if isinstance(value, list) and value and isinstance(value[0], dict)}
    names = {name for name in found if name not in rows} | {
        f"{name}[].{field}" for name in rows for field in found[name][0]
    }
    assert names == documented("The report")


def test_a_document_is_json_and_the_same_for_the_same_log(made):
    start = made()
    text = to_text(document(start))
    assert json.loads(text) == document(start)
    assert to_text(document(made())) == text


def test_a_start_compared_with_itself_has_no_difference(made):
    found = difference(made("a"), made("a"))
    assert [
        found[name] for name in ("only_in_a", "only_in_b", "outcomes", "versions", "environment", "config", "kernels")
    ] == [[], [], [], {}, {}, {}, {}]
    assert found["seconds"] == {"a": found["seconds"]["a"], "b": found["seconds"]["a"], "change": 0, "keys": []}
    assert (found["unexpected"]["only_in_a"], found["unexpected"]["only_in_b"], found["unexpected"]["in_both"]) == (
        [],
        [],
        3,
    )


def test_a_comparison_names_what_changed(made):
    a = made("a", n_keys=60, serves=False)
    versions, config = {"toolchains": {"triton": "triton 3.10.0"}}, {"extra": {"acme": {"heads": [8]}}}
    b = made("b", n_keys=72, slower=2.0, versions=versions, config=config, environment={"CC": "gcc"})
    found = difference(a, b)
    assert found["versions"] == {"toolchains.triton": ["triton 3.9.0", "triton 3.10.0"]}
    assert found["config"] == {"extra.acme.heads": [[8, 16], [8]]}
    assert found["environment"] == {"CC": [None, "gcc"]}
    assert {(key["kernel"], key["digest"]) for key in found["only_in_a"]} == a.keys.keys() - b.keys.keys()
    assert {(key["kernel"], key["digest"]) for key in found["only_in_b"]} == b.keys.keys() - a.keys.keys() != set()
    assert found["seconds"]["change"] > 0
    slower = found["seconds"]["keys"]
    assert slower[0]["change"] == max(key["change"] for key in slower) > 0.05
    assert len(found["unexpected"]["only_in_b"]) == 3
    assert found["unexpected"]["seconds_lost"]["a"] == 0


@pytest.mark.xdist_group("a real start")
def test_a_second_start_on_the_same_store_is_seen_to_load(real):
    a, b = (read_starts([name], real)[0] for name in ("cold", "again"))
    found = difference(a, b)
    assert found["only_in_a"] == found["only_in_b"] == []
    assert {(change["a"], change["b"]) for change in found["outcomes"]} == {("compiled", "loaded")}
    assert len(found["outcomes"]) == 11
    assert found["versions"] == found["config"] == found["kernels"] == {}


@pytest.mark.xdist_group("a real start")
def test_the_document_of_a_real_start(real):
    found = document(read_starts(["cold"], real)[0])
    assert (found["n_keys"], found["n_warm"], found["n_compiles"], found["is_complete"]) == (11, 11, 11, True)
    assert found["outcomes"] == {"compiled": 11}
    assert [process["outcomes"].keys() <= {"compiled", "loaded"} for process in found["processes"]] == [True, True]
    assert sum(worker["n_builds"] for worker in found["workers"]) == 11
    builders = {worker["id"] for worker in found["workers"]}
    assert {key["worker"] for key in found["keys"]} <= builders
    assert set(found["versions"]["toolchains"]) == {"triton", "cutedsl", "tilelang"}
    assert found["watched_by"] == {}
    assert (found["n_never_used"], found["kernels"][0]["hit"]) == (None, None)


@pytest.mark.parametrize("n_keys", [5000])
def test_a_start_of_thousands_of_keys_and_four_ranks_is_read(made, n_keys):
    start = made(n_keys=n_keys, n_kernels=24, n_ranks=4, n_workers=8)
    assert (len(start.keys), len(start.processes), len(start.workers)) == (5000, 4, 32)
    assert sum(len(worker.builds) for worker in start.workers) == sum(
        key.outcome in ("compiled", "failed", "timed_out") for key in start.keys.values()
    )
