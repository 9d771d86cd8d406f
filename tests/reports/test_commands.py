"""`jitwarm report` and `jitwarm check`, as a person and as CI call them."""

import json
import os
import signal
import stat
import subprocess
import warnings

import kits
import made_logs
import pytest

from jitwarm.cli import main

TINY = """
from dataclasses import dataclass
from jitwarm import IntRange, Outcome, hookimpl, trace_dispatch

class Tiny:
    name = "scale"

    @dataclass(frozen=True)
    class CompileKey:
        block: int

    def dispatch(self, *, n):
        return self.CompileKey(16 if n <= 64 else 128)

    def get_warmup_keys(self, config):
        return trace_dispatch(self.dispatch, n=IntRange(1, 257))

    def compile(self, key):
        return Outcome.COMPILED

@hookimpl
def jitwarm_kernels():
    return [Tiny()]

@hookimpl
def jitwarm_compile():
    return Outcome.LOADED
"""


@pytest.fixture
def bake(cli, site, tmp_path):
    """Bake a package of one traced kernel with two keys, which a policy has at once; the store is `store`."""

    def run(*options):
        kits.install(site, "tiny", TINY)
        return cli("bake", "--target", "cuda:90", "--out", tmp_path / "store", *options)

    return run


@pytest.fixture
def jitwarm(capfd, tmp_path, monkeypatch):
    """The command line in this process, which is quicker than one of its own; the end of it, as `subprocess` gives it."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
            main([str(argument) for argument in arguments])
        code = ended.value.code
        return subprocess.CompletedProcess(arguments, code or 0, *capfd.readouterr())

    yield run
    signal.signal(signal.SIGTERM, before)


def said(done):
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text
    return " ".join(text.split())


@pytest.fixture
def store(tmp_path):
    made_logs.make(tmp_path / "events" / "made", n_keys=60)
    return tmp_path


def test_a_bake_is_reported_from_its_log(bake, cli, jitwarm):
    assert bake().returncode == 0
    done = cli("report", "store")
    assert done.returncode == 0, done.stderr
    assert "all warm: 2 of 2 keys" in said(done)
    document = kits.json_of(jitwarm("report", "--root", "store", "--json"))
    assert {key["label"]: (key["outcome"], key["regions"], key["witness"]) for key in document["keys"]} == {
        "block=16": ("loaded", ["n <= 64"], {"n": "1"}),
        "block=128": ("loaded", ["n >= 65"], {"n": "65"}),
    }
    assert document["versions"]["plugins"]["tiny"] == "tiny 1.0"


def test_a_failure_is_told_as_it_was_and_cannot_steer_the_terminal(jitwarm, tmp_path):
    log = made_logs.Writer(tmp_path / "run", "node1", 7)
    log.emit(0, "run_start", target="cuda:90", root="/store", on_device=True)
    log.emit(0.2, "kernel_planned", kernel="p:k", backend=None, distribution="p 1", import_path="", notes=[])
    log.emit(0.2, "key_planned", kernel="p:k", digest="d" * 64, key="{}", label="[red]n=1")
    error = "tile [/bold] does not divide \x1b[2J\x07"
    log.emit(0.3, "key_end", kernel="p:k", digest="d" * 64, outcome="failed", error=error, seconds=0.1)
    log.close()
    done = jitwarm("report", "run")
    assert done.returncode == 0
    assert "failed p:k [[red]n=1]" in said(done)
    assert "tile [/bold] does not divide \ufffd[2J" in done.stdout
    assert not {"\x1b", "\x07"} & set(done.stdout)
    assert "not all warm: 0 of 1 keys" in said(done)


def test_a_summary_says_what_was_missed_with_the_line_to_add(jitwarm, store):
    text = said(jitwarm("report", "made", "--root", store))
    for words in (
        "rank 0 (node1:1000): plan 0.2 s",
        "unexpected compile acme:kernel_0 [stride_kv=32, num_warps=4]",
        "stride_kv: other -> multiple of 16",
        "-> stride_kv=Choices(IntClass.OTHER, IntClass.MULTIPLE_OF_16)",
        "at acme/ops.py:118 in forward",
        "compiled during the execution run, declared by nobody: 1",
        "compile acme.sampling:_top_k [BLOCK=256]",
        "-> declare a kernel for acme.sampling:_top_k",
        "never used: 13 warm keys",
        "not all warm: 59 of 60 keys",
    ):
        assert words in text


def test_files_are_written_whole_and_as_the_umask_says(jitwarm, store, tmp_path):
    (tmp_path / "page.html").write_text("old")
    done = jitwarm("report", store, "--html", "page.html", "--trace", "trace.json")
    assert (done.returncode, done.stdout) == (0, "")
    assert "written: page.html" in done.stderr
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert stat.S_IMODE((tmp_path / "trace.json").stat().st_mode) == 0o666 & ~umask()
    assert not list(tmp_path.glob(".*html*"))


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("place", ["nowhere/page.html", "events"])
def test_a_file_that_cannot_be_written_is_told_with_its_name(jitwarm, store, place):
    done = jitwarm("report", store, "--html", place)
    assert done.returncode == 2
    assert f"{place} cannot be written" in said(done)


def test_a_pipe_is_written_to_and_not_replaced(cli, store):
    done = cli("report", store, "--trace", "/dev/stdout")
    assert json.loads(done.stdout)["displayTimeUnit"] == "ms"


def test_options_that_contradict_one_another_are_told(jitwarm, store):
    made_logs.make(store / "events" / "other", n_keys=5, run="other")
    for options, words in (
        (("made", "other", "--html", "x.html"), "--html shows one start, and 2 were named"),
        (("made", "--diff"), "--diff compares two starts, and 1 were named"),
        (("made", "other", "--diff", "--html", "x.html"), "--html and --trace show one"),
        (("absent",), "there is no run 'absent'"),
    ):
        done = jitwarm("report", "--root", store, *options)
        assert (done.returncode, words in said(done)) == (2, True), said(done)
    done = jitwarm("check", "made", "--root", store)
    assert (done.returncode, "there is no limit to check" in said(done)) == (2, True)


def test_two_starts_are_compared(jitwarm, store):
    made_logs.make(store / "events" / "other", n_keys=66, run="other", versions={"python": "3.13.0"}, slower=2)
    text = said(jitwarm("report", "made", "other", "--diff", "--root", store))
    for words in (
        "versions: python: 3.12.3 -> 3.13.0",
        "+ acme:kernel_0",
        "keys gone",
        "a: made cuda:90 59 of 60 keys warm",
    ):
        assert words in text
    document = kits.json_of(jitwarm("report", "made", "other", "--diff", "--json", "--root", store))
    assert document["versions"] == {"python": ["3.12.3", "3.13.0"]}


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (("--budget", "60"), 0, "within the limits"),
        (("--budget", "59"), 1, "--budget: 60 expected keys, at most 59 are allowed"),
        (("--max-cold", "4"), 0, "within the limits"),
        (("--max-cold", "3"), 1, "--max-cold: 4 cold, at most 3 are allowed"),
        (("--max-never-used", "12"), 1, "--max-never-used: 13 warm keys were never used"),
        (("--max-undeclared", "1"), 0, "within the limits"),
        (("--max-undeclared", "0"), 1, "--max-undeclared: 1 compiles are declared by nobody, at most 0 are allowed"),
        (("--max-seconds", "1"), 1, "--max-seconds:"),
        (
            ("--max-seconds", "1000", "--budget", "60", "--max-cold", "4", "--max-never-used", "13"),
            0,
            "within the limits",
        ),
    ],
)
def test_the_gate_passes_at_a_limit_and_breaks_beyond_it(jitwarm, store, limits, code, words):
    done = jitwarm("check", *limits, "--root", store)
    assert (done.returncode, words in said(done)) == (code, True), said(done)


def test_the_gate_lists_what_broke(jitwarm, store):
    text = said(jitwarm("check", "--max-cold", "0", "made", "--root", store))
    assert "example:kernel_1 [block_m=128, dtype=float16, n=13, num_stages=2] failed: ptxas: error" in text
    assert "unexpected compile of acme:kernel_0 [stride_kv=32, num_warps=4]" in text
    text = said(jitwarm("check", "--budget", "5", "made", "--root", store))
    assert "10 acme:kernel_0" in text
    document = kits.json_of(jitwarm("check", "--budget", "5", "--max-cold", "0", "--json", "--root", store))
    assert (document["passed"], [(b["limit"], b["found"]) for b in document["broken"]]) == (
        False,
        [("--budget", 60), ("--max-cold", 4)],
    )


def test_the_gate_takes_what_bake_plan_and_report_print(bake, cli, jitwarm, tmp_path):
    (tmp_path / "bake.json").write_text(bake("--json").stdout)
    (tmp_path / "plan.json").write_text(cli("plan", "--target", "cuda:90", "--json").stdout)
    (tmp_path / "report.json").write_text(jitwarm("report", "store", "--json").stdout)
    (tmp_path / "both.json").write_text(
        f"[{(tmp_path / 'bake.json').read_text()}, {(tmp_path / 'bake.json').read_text()}]"
    )
    files = ("bake.json", "report.json", "both.json", "store")
    done = jitwarm("check", "--budget", "2", "--max-cold", "0", *files)
    assert (done.returncode, "within the limits: 5 checked" in said(done)) == (0, True), said(done)
    assert jitwarm("check", "--budget", "1", "plan.json").returncode == 1
    assert jitwarm("check", "--budget", "2", "plan.json").returncode == 0
    assert "2 cold" in said(jitwarm("check", "--max-cold", "0", "plan.json"))  # a plan alone warms nothing


def test_what_nobody_knows_passes_no_limit(bake, jitwarm):
    bake()
    done = jitwarm("check", "--max-never-used", "5", "store")
    assert (done.returncode, "whether keys were used is not known" in said(done)) == (1, True)
    done = jitwarm("check", "--max-undeclared", "5", "store")
    assert (done.returncode, "what was compiled before serving is not known" in said(done)) == (1, True)


def test_a_plan_without_a_key_passes_no_gate(cli, jitwarm, tmp_path):
    """A plugin that was not installed must not turn CI green."""
    (tmp_path / "plan.json").write_text(cli("plan", "--target", "cuda:90", "--json").stdout)
    done = jitwarm("check", "--budget", "100", "plan.json")
    assert (done.returncode, "no key was planned" in said(done)) == (1, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{}", "is JSON, but no report"), ("hello", "is neither an event log (.jsonl) nor JSON"), ("", "is neither"),
     ('{"n_keys": 1, "kernels": [{"id": 3}]}', "another version")],
)  # fmt: skip
def test_a_file_that_is_no_report_is_a_usage_error(jitwarm, tmp_path, text, words):
    (tmp_path / "x.json").write_text(text)
    done = jitwarm("check", "--budget", "1", "x.json")
    assert (done.returncode, words in said(done)) == (2, True), said(done)
