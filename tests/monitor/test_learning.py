"""What compiles while serving is written down, learned, and warm at the next start."""

import json
import os
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import kits
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitwarm.contract.learned import Learned, LearnedFunction, LearnedKey
from jitwarm.errors import SettingsError
from jitwarm.learning import learn, to_toml
from jitwarm.settings import Settings, read_learned, read_leniently
from jitwarm.store import Recorder, read_records

SUPPORT = Path(__file__).parents[1] / "support"
KERNELS = """
from dataclasses import dataclass
import triton
import triton.language as tl
from jitwarm import IntClass, IntRange, TensorSpec, TritonKernel, hookimpl, trace_dispatch

LARGEST = 128

@triton.jit
def scale(x_ptr, out_ptr, n, factor, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n) * factor, mask=at < n)

@triton.jit
def square(x_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n)
    tl.store(x_ptr + at, x * x, mask=at < n)

class Scale(TritonKernel):
    name = "scale"
    kernel = scale
    fixed = {"x_ptr": TensorSpec("float32", ("n",)), "out_ptr": TensorSpec("float32", ("n",))}

    @dataclass(frozen=True)
    class CompileKey:
        n: IntClass
        block: int

    def dispatch(self, *, n: int) -> CompileKey:
        return self.CompileKey(n=IntClass.of(n), block=64 if n <= 64 else 128 if n <= 128 else 256)

    def get_warmup_keys(self, config):
        return trace_dispatch(self.dispatch, n=IntRange(16, LARGEST + 1, 16))

    def launch_args(self, key):
        return {"n": key.n, "factor": 2.0, "BLOCK": key.block}

SCALE = Scale()

@hookimpl
def jitwarm_kernels():
    return [SCALE]
"""


@pytest.fixture
def site(tmp_path):
    kits.install(tmp_path / "site", "served_kernels", KERNELS, plugin="served")
    return tmp_path / "site"


@pytest.fixture
def run(tmp_path, site):
    """Run a program with the plugin `served` installed. Returns what it printed."""

    def run(*arguments, expected=0, **variables):
        done = kits.python(
            *arguments,
            cwd=tmp_path,
            PYTHONPATH=os.pathsep.join([str(site), str(SUPPORT), *filter(None, sys.path)]),
            CUDA_VISIBLE_DEVICES="",
            JITWARM_CACHE_DIR=tmp_path / "store",
            JITWARM_PLUGINS="served",
            **variables,
        )
        assert done.returncode == expected, done.stderr + done.stdout
        return done.stdout

    return run


@pytest.fixture
def serve(run, tmp_path):
    def serve(*sizes, store="store", **variables):
        printed = run(SUPPORT / "serve_once.py", tmp_path / store, *sizes, **variables)
        return json.loads(printed.splitlines()[-1])

    return serve


# --- the loop ----------------------------------------------------------------------------------------------------------


def test_what_compiled_once_is_learned_and_warm_at_the_next_start(serve, run, tmp_path, site):
    first = serve(64, 208, JITWARM_MONITOR="record")
    assert [(e["kernel"], e["function"]) for e in first["said"]] == [
        ("served:scale", "served_kernels:scale"),
        ("", "served_kernels:square"),
    ]

    printed = run("-m", "jitwarm", "learn", "--out", "jitwarm.lock.toml")
    assert printed.count("new ") == 2, printed
    file = tmp_path / "jitwarm.lock.toml"
    document = tomllib.loads(file.read_text())
    assert document["key"][0]["kernel"] == "served:scale"
    assert document["key"][0]["label"] == "n=MULTIPLE_OF_16, block=256"
    assert document["function"][0]["function"] == "served_kernels:square"

    # A new process, a new store: the file alone makes both warm.
    second = serve(64, 208, store="new", JITWARM_MONITOR="error", JITWARM_LEARNED_KEYS=file)
    assert second["said"] == []
    assert second["outcomes"] == {"compiled": 4}, second["rows"]

    # What the last start had from the file is no declaration: nothing goes.
    assert serve(64, 208, JITWARM_MONITOR="record", JITWARM_LEARNED_KEYS=file)["said"] == []
    run("-m", "jitwarm", "learn", "--out", "jitwarm.lock.toml")
    assert tomllib.loads(file.read_text()) == document

    # The author widens the declaration: the entry goes, the other stays.
    source = site / "served_kernels.py"
    source.write_text(source.read_text().replace("LARGEST = 128", "LARGEST = 256"))
    printed = run("-m", "jitwarm", "learn", "--out", "jitwarm.lock.toml")
    assert "declared served:scale" in printed
    document = tomllib.loads(file.read_text())
    assert "key" not in document
    assert len(document["function"]) == 1


def test_a_check_writes_nothing_and_fails_while_there_is_something_to_learn(serve, run, tmp_path):
    serve(208, JITWARM_MONITOR="record")
    run("-m", "jitwarm", "learn", "--check", expected=1)
    assert not (tmp_path / "jitwarm.lock.toml").exists()
    run("-m", "jitwarm", "learn")
    run("-m", "jitwarm", "learn", "--check")


@pytest.mark.soak
def test_the_file_in_the_stores_root_is_found_by_itself(serve, run, tmp_path):
    serve(208, JITWARM_MONITOR="record")
    run("-m", "jitwarm", "learn", "--out", tmp_path / "store" / "jitwarm.lock.toml")
    assert serve(208)["said"] == []


def test_a_monitor_that_does_not_record_writes_nothing_down(serve, tmp_path):
    assert len(serve(208)["said"]) == 2
    assert not (tmp_path / "store" / "learned").exists()


# --- the file ----------------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
NAMES = TEXT.filter(bool)
SEEN = {
    "label": TEXT,
    "why": TEXT,
    "site": TEXT,
    "n": st.integers(1, 10**6),
    "hosts": st.lists(NAMES, max_size=2).map(tuple),
    "targets": st.lists(st.sampled_from(["cuda:90", "hip:gfx942"]), max_size=2).map(tuple),
    "first": st.just("2026-01-02"),
    "last": st.just("2026-01-03"),
}
KEYS = st.builds(LearnedKey, **SEEN, kernel=NAMES, key=NAMES)
FUNCTIONS = st.builds(LearnedFunction, **SEEN, backend=NAMES, function=NAMES, replay=TEXT)


@given(st.lists(KEYS, max_size=3), st.lists(FUNCTIONS, max_size=3))
def test_what_is_written_is_read_back(keys, functions):
    learned = Learned(tuple(keys), tuple(functions))
    assert Learned.from_toml(tomllib.loads(to_toml(learned)), "file") == learned


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version = 2\n", "has version 2, not 1"),
        ("[[key]]\n", "has version None"),
        ("version = 1\n[[key]]\nkernle = 'a'\n", "kernle is nothing that an entry has"),
        ("version = 1\n[[key]]\nn = 'many'\n", "n = 'many' is of the wrong type"),
        ("version = \n", "is no TOML"),
    ],
)
def test_a_file_that_is_none_is_refused_and_a_server_starts_without_it(tmp_path, text, says):
    file = tmp_path / "jitwarm.lock.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_learned(Settings(learned_keys=str(file)))
    asked, problems = read_leniently({"learned_keys": str(file)}, environ={})
    assert asked.learned == Learned()
    assert says in problems[0]


def test_a_root_that_cannot_be_read_is_no_matter_here():
    """As with the home of another user, and `bake --out` elsewhere."""
    assert read_learned(Settings(cache_dir="/" + "x" * 300)) == Learned()


def test_a_file_that_is_named_must_be_there(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        read_learned(Settings(learned_keys=str(tmp_path / "none.toml")))


# --- merging -----------------------------------------------------------------------------------------------------------


class Nothing:
    """No declaration covers anything."""

    def covers(self, entry):
        return False


RECORD = {
    "v": 1, "t_ns": 1_700_000_000_000_000_000, "host": "a", "target": "cuda:90", "backend": "triton", "function": "m:f",
    "kernel": "p:k", "key": "{}", "label": "l", "why": "w", "site": "s", "replay": "r",
}  # fmt: skip


def test_the_same_miss_of_many_hosts_is_one_entry_that_counts_them():
    records = [
        RECORD,
        {**RECORD, "host": "b", "target": "cuda:100"},
        {**RECORD, "t_ns": RECORD["t_ns"] + 86400 * 10**9},
    ]
    (entry,) = learn(records, Learned(), Nothing()).learned.keys
    assert (entry.n, entry.hosts, entry.targets) == (3, ("a", "b"), ("cuda:100", "cuda:90"))
    assert (entry.first, entry.last) == ("2023-11-14", "2023-11-15")


def test_learning_twice_from_the_same_records_changes_nothing():
    once = learn([RECORD, RECORD], Learned(), Nothing())
    again = learn([RECORD, RECORD], once.learned, Nothing())
    assert again.learned == once.learned
    assert not again.new


def test_entries_of_the_file_stay_when_their_records_are_gone():
    known = learn([RECORD], Learned(), Nothing()).learned
    assert learn([], known, Nothing()).learned == known


def test_a_function_that_cannot_be_found_again_is_listed_without_a_replay():
    records = [
        {**RECORD, "kernel": "", "key": "", "function": name} for name in ("__main__:f", "m:f.<locals>.g", "m:f")
    ]
    functions = learn(records, Learned(), Nothing()).learned.functions
    assert {entry.function: entry.replay for entry in functions} == {"__main__:f": "", "m:f.<locals>.g": "", "m:f": "r"}


def test_a_learned_key_of_another_version_of_the_kernel_is_left_out_and_said(start):
    import triton_kernels

    entry = LearnedKey(kernel="kit:Scale", key='{"gone":["int","1"]}')
    started = start(triton_kernels.Scale(), learned=Learned(keys=(entry,)))
    assert started.plan.n_keys == 1
    assert set(started.outcomes) <= {"compiled", "already_warm"}  # another test may have compiled it in this process
    notes = [note for kernel in started.session.report.kernels.values() for note in kernel.notes]
    assert any("a learned key is left out" in note for note in notes)
    assert (
        start(
            triton_kernels.Scale(), learned=Learned(keys=(replace(entry, targets=("cuda:100",)),)), store="b"
        ).plan.n_keys
        == 1
    )


# --- the records -------------------------------------------------------------------------------------------------------


def test_records_of_many_processes_survive_torn_lines_and_are_bounded(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path, {"target": "cuda:90"})
    for n in range(3):
        recorder.append({"n": n, "text": "x" * 900_000})
    files = sorted(path.name for path in (tmp_path / "learned").iterdir())
    assert len(files) == 2
    assert sum(path.stat().st_size for path in (tmp_path / "learned").iterdir()) < 4 << 20
    (tmp_path / "learned" / "other-1.jsonl").write_text('{"v": 1, "n": 7}\n{"v": 1, "n": 8')
    (tmp_path / "learned" / "foreign-1.jsonl").write_text('{"v": 2, "n": 9}\nno json\n')
    assert sorted(record["n"] for record in read_records(tmp_path)) == [0, 1, 2, 7]
