"""The collector over real event files: what a page of metrics shows, and how much of a file it reads."""

import json
import shutil
from pathlib import Path

import pytest
from metrics_kit import ROPE, miss, page, parsed, warm
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

import jitwarm.metrics
from jitwarm.integrations.vllm.exposition import NAMES, below
from jitwarm.metrics.collecting import EventCollector
from jitwarm.metrics.following import MAX_BYTES, Follower

COMPILES = f"jitwarm_unexpected_compiles_total{ROPE}"
SECONDS = f"jitwarm_unexpected_compile_seconds_total{ROPE}"


@pytest.fixture
def shown(events):
    """The page of a server that shows one store, asked again and again."""
    collector = jitwarm.metrics.collector(events.parent)
    return lambda: page(collector)


def test_a_warm_up_is_shown_whole_with_every_counter_at_0(start_worker, shown):
    start_worker().emit(*warm("a", "b"))
    found = shown()
    assert found.pop("jitwarm_warmup_seconds") >= 0
    [info] = [name for name in found if name.startswith("jitwarm_info")]
    assert 'run="run",target="cuda:90"' in info
    del found[info]
    places = [
        ("triton", "site:rope"),
        *((name, "undeclared") for name in ("triton", "cutedsl", "inductor", "flashinfer")),
    ]
    kinds = ("unexpected_compiles", "unexpected_compile_seconds", "unexpected_tunings", "unexpected_tuning_seconds")
    zeros = [
        f'jitwarm_{kind}_total{{backend="{backend}",kernel="{kernel}"}}' for kind in kinds for backend, kernel in places
    ]
    zeros += [f'jitwarm_reloads_total{{backend="{backend}"}}' for backend in ("triton", "cutedsl")]
    assert found == dict.fromkeys([*zeros, "jitwarm_cold_keys"], 0) | {
        'jitwarm_keys{outcome="compiled",plugin="site"}': 2, "jitwarm_workers": 1, "jitwarm_watched_workers": 1,
    }  # fmt: skip


def test_what_happens_between_two_looks_is_added(start_worker, shown):
    worker = start_worker()
    worker.emit(*warm("a"), miss(seconds=1.5))
    assert (shown()[COMPILES], shown()[SECONDS]) == (1, 1.5)
    worker.emit(
        miss(seconds=0.25), miss(kernel=""), miss(what="tuning", seconds=9), ("reloaded", {"backend": "triton"})
    )
    found = shown()
    assert (found[COMPILES], found[SECONDS]) == (2, 1.75)
    assert found['jitwarm_unexpected_compiles_total{backend="triton",kernel="undeclared"}'] == 1
    assert found[f"jitwarm_unexpected_tunings_total{ROPE}"] == 1
    assert found[f"jitwarm_unexpected_tuning_seconds_total{ROPE}"] == 9
    assert found['jitwarm_reloads_total{backend="triton"}'] == 1


def test_ranks_count_a_key_once_and_a_compile_each(start_worker, shown):
    first, second = start_worker(rank=0), start_worker(rank=1)
    first.emit(*warm("a", "b", "c"), miss())
    second.emit(*warm("a", outcome="loaded"), *warm("b", outcome="failed")[3:4], miss())
    found = shown()
    assert found['jitwarm_keys{outcome="compiled",plugin="site"}'] == 2
    assert found['jitwarm_keys{outcome="failed",plugin="site"}'] == 1
    assert found["jitwarm_cold_keys"] == 1
    assert found[COMPILES] == 2
    assert found["jitwarm_workers"] == 2


def test_a_kernel_without_a_list_is_cold_and_a_skipped_key_is_not(start_worker, shown):
    start_worker().emit(
        *warm("a", outcome="skipped"),
        ("kernel_unlisted", {"kernel": "site:lost", "outcome": "failed", "error": "why"}),
        ("kernel_unlisted", {"kernel": "site:of_first_rank", "outcome": "skipped", "error": "not on this rank"}),
    )
    assert shown()["jitwarm_cold_keys"] == 1


def test_a_worker_that_nobody_watches_is_not_counted_as_watched(start_worker, shown):
    worker = start_worker()
    worker.emit(*warm("a")[:-1], ("monitor_armed", {"by": "vllm", "mode": "warn"}))
    assert shown()["jitwarm_watched_workers"] == 0
    worker.emit(("monitor_armed", {"by": "jitwarm", "mode": "warn"}))
    assert shown()["jitwarm_watched_workers"] == 1
    worker.emit(("monitor_ended", {"n": 0}))
    assert shown()["jitwarm_watched_workers"] == 0


# --- files -------------------------------------------------------------------------------------------------------------


def test_a_torn_line_waits_for_its_end(log, events, shown):
    for name, fields in warm("a"):
        log.emit(name, **fields)
    [file] = events.glob("*/*.jsonl")
    line = json.dumps({"event": "unexpected_compile", **miss()[1]}).encode() + b"\n"
    with file.open("ab") as stream:
        stream.write(line[:60])
    assert shown()[COMPILES] == 0
    with file.open("ab") as stream:
        stream.write(line[60:])
    assert shown()[COMPILES] == 1


def test_lines_that_are_none_of_ours_are_passed_over(log, events, shown):
    [file] = events.glob("*/*.jsonl")
    with file.open("ab") as stream:
        stream.write(b'{"event": "key_end", "kernel": 3}\n\xff\xfe "event": "key_end"\n\n{"event": "run_end"\n')
    for name, fields in warm("a", kernel='site:"event": "registered"'):
        log.emit(name, **fields)
    assert shown()['jitwarm_keys{outcome="compiled",plugin="site"}'] == 1


def test_what_was_counted_stays_when_its_file_is_pruned(start_worker, events, shown):
    worker = start_worker()
    worker.emit(*warm("a"), miss())
    assert shown()[COMPILES] == 1
    worker.end()
    shutil.rmtree(events / "run")
    assert shown()[COMPILES] == 1
    start_worker(run="later").emit(*warm("a"), miss())
    assert shown()[COMPILES] == 2


def test_a_number_of_a_file_that_is_given_to_another_one_is_another_file(log, events, shown):
    """File systems give the number of a removed file to the next one."""
    for name, fields in [*warm("a"), miss()]:
        log.emit(name, **fields)
    assert shown()[COMPILES] == 1
    [file] = events.glob("*/*.jsonl")
    written = file.read_bytes()
    (events / "later").mkdir()
    later = file.rename(events / "later" / file.name)
    later.write_bytes(written)
    assert shown()[COMPILES] == 2


def test_a_run_can_be_chosen(start_worker, events):
    start_worker(run="one").emit(*warm("a"), miss())
    start_worker(run="two").emit(*warm("a"))
    assert page(jitwarm.metrics.collector(events.parent, "one"))[COMPILES] == 1
    assert page(jitwarm.metrics.collector(events.parent, "two"))[COMPILES] == 0
    assert page(jitwarm.metrics.collector(events.parent))[COMPILES] == 1


def test_nothing_is_shown_where_there_is_no_file(tmp_path):
    assert page(jitwarm.metrics.collector(tmp_path / "none")) == {}


def bytes_read():
    """By this process so far."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def test_100000_events_are_read_in_parts_and_shown_when_all_are_read(log, events, shown):
    """No request for a page reads more than its part, and half a sum is never shown."""
    [file] = events.glob("*/*.jsonl")
    lines = [json.dumps({"event": name, **fields}) for name, fields in warm("a")]
    lost = {"v": 1, "t_ns": 1, "mono_ns": 1, "run": "run", "pid": 1, "event": "unexpected_compile", **miss()[1]}
    file.write_text("\n".join([*lines, *[json.dumps(lost)] * 100_000]) + "\n")
    n_parts, found = 0, {}
    while not found:
        before = bytes_read()
        found = shown()
        n_parts += 1
        assert bytes_read() - before < MAX_BYTES + 100_000
    assert found[COMPILES] == 100_000
    assert n_parts == -(-file.stat().st_size // MAX_BYTES)
    before = bytes_read()
    assert shown() == found
    assert bytes_read() - before < 100_000


# --- which processes belong together -------------------------------------------------------------------------------------


@pytest.fixture
def server(events):
    """The page of a process with a lineage."""

    def make(lineage, *, with_sisters=False):
        start = lineage.split("/")[0]
        return EventCollector(
            Follower(events, kin=start), lambda found: below(lineage, found, with_sisters=with_sisters)
        )

    return make


def test_two_engines_beside_each_other_show_their_own(start_worker, server, events):
    start_worker(run="one", lineage="aa").emit(*warm("a"), miss())
    start_worker(run="two", lineage="ab").emit(*warm("a", "b"), miss(), miss())
    start_worker(run="three").emit(*warm("a"), miss())  # in no server
    assert [page(server(lineage))[COMPILES] for lineage in ("aa", "ab")] == [1, 2]
    assert page(server("a")) == {}
    follower = Follower(events, kin="aa")
    follower.look()
    assert len(follower.tallies) == 1  # the others' events are not even kept


def test_an_engine_that_is_started_again_begins_at_0(start_worker, server):
    first = start_worker(lineage="aa")
    first.emit(*warm("a"), miss())
    first.end()
    assert page(server("aa"))[COMPILES] == 1
    start_worker(lineage="bb").emit(*warm("a"))
    assert page(server("bb"))[COMPILES] == 0


def test_a_restart_into_the_same_file_begins_at_0(log, server):
    """In a container process ids repeat, and with JITWARM_RUN_ID so does the name of the run."""
    for lineage, n in (("aa/1", 3), ("bb/1", 1)):
        log.emit("registered", lineage=lineage)
        for name, fields in [*warm("a"), *[miss()] * n]:
            log.emit(name, **fields)
    assert [page(server(lineage))[COMPILES] for lineage in ("aa", "bb")] == [3, 1]


def test_sisters_of_the_engine_show_what_their_mother_started(start_worker, server):
    """Several API servers: each shows all, so that it is all the same which of them is asked."""
    start_worker(lineage="aa/core1").emit(*warm("a"), miss())
    start_worker(lineage="aa/core2").emit(*warm("a"), miss())
    for api in ("aa/api1", "aa/api2"):
        assert page(server(api, with_sisters=True))[COMPILES] == 2
    assert page(server("aa/core1", with_sisters=True))[COMPILES] == 1
    assert page(server("aa/api1")) == {}


def test_a_worker_that_warms_up_again_shows_the_last_outcome_and_all_compiles(log, server):
    for keys, outcome in (("ab", "failed"), ("a", "already_warm")):
        log.emit("registered", lineage="aa/1")
        for name, fields in [*warm(*keys, outcome=outcome), miss()]:
            log.emit(name, **fields)
    found = page(server("aa"))
    assert found['jitwarm_keys{outcome="already_warm",plugin="site"}'] == 1
    assert (found["jitwarm_cold_keys"], found[COMPILES]) == (0, 2)


# --- registering -------------------------------------------------------------------------------------------------------


def test_a_registry_takes_it_once(events):
    registry = CollectorRegistry()
    jitwarm.metrics.register(registry, root=events.parent)
    with pytest.raises(ValueError, match="jitwarm_unexpected_compiles"):
        jitwarm.metrics.register(registry, root=events.parent)


def test_names_that_are_known_beforehand_are_those_of_the_families(events):
    families = jitwarm.metrics.collector(events.parent).describe()
    assert {family.name: family.type for family in families} == NAMES


def test_a_page_can_be_restricted_to_one_name(start_worker, events):
    start_worker().emit(*warm("a"))
    registry = CollectorRegistry()
    jitwarm.metrics.register(registry, root=events.parent)
    text = generate_latest(registry.restricted_registry(["jitwarm_cold_keys"])).decode()
    assert list(parsed(text)) == ["jitwarm_cold_keys"]
