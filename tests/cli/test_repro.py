"""`jitwarm repro KEY`: the command of a report builds just that key, and fails as the compiler did."""

import json
import os
import shlex
import signal
import subprocess
import sys

import fault_kit
import kits
import pytest
from fault_kit import notes


@pytest.fixture(autouse=True)
def faulty(tmp_path, monkeypatch, site):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("JITWARM_PLUGINS", "faulty")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kits.install(site, "faulty", fault_kit.PLUGIN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))


def jitwarm(*arguments, **environ):
    return kits.python("-m", "jitwarm", *arguments, **environ)


def bake(root, *does, **environ):
    """(report, its keys by what they do)."""
    done = jitwarm(
        "bake", "--target", "cuda:90", "--out", root, "--set", f"faulty.does={json.dumps(does)}", "--json", **environ
    )
    report = json.loads(done.stdout)
    return {key["label"].removeprefix("fault="): key for kernel in report["kernels"] for key in kernel["keys"]}


def again(key):
    """Run the command that a report gives."""
    program, *arguments = shlex.split(key["repro"])
    assert program == "jitwarm"
    return jitwarm(*arguments)


def files(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_command_of_a_crash_crashes_as_the_compiler_did_and_touches_no_store(tmp_path):
    keys = bake(tmp_path / "a store", "builds", "segfaults")
    assert keys["builds"]["repro"] is None
    before = files(tmp_path / "a store")
    done = again(keys["segfaults"])
    assert done.returncode == -signal.SIGSEGV
    assert "faulty:kernel [fault=segfaults] for cuda:90" in done.stdout
    assert files(tmp_path / "a store") == before
    assert [noted["does"] for noted in notes()].count("segfaults") == 3


def test_the_command_of_an_error_shows_it_and_what_the_compiler_prints(tmp_path):
    keys = bake(tmp_path / "store", "raises", "prints and ends")
    done = again(keys["raises"])
    assert (done.returncode, "failed: ValueError: tile does not divide" in done.stderr) == (1, True)
    done = again(keys["prints and ends"])
    assert (done.returncode, "line 0\n" in done.stderr, "ptxas: out of registers" in done.stderr) == (3, True, True)


def test_a_key_that_works_is_built_into_a_directory_of_its_own(tmp_path):
    key = bake(tmp_path / "store", "builds")["builds"]
    done = jitwarm("repro", key["digest"], "--root", tmp_path / "store", TMPDIR=tmp_path)
    assert done.returncode == 0, done.stderr
    (scratch,) = tmp_path.glob("jitwarm-repro-*")
    assert f"it is in {scratch}/store" in done.stdout


def test_the_compilers_variables_are_those_of_the_run(tmp_path):
    key = bake(tmp_path / "store", "shows TRITON_PRINT_AUTOTUNING", TRITON_PRINT_AUTOTUNING="yes", CC="gcc-of-that-run")
    (key,) = key.values()
    jitwarm("repro", key["digest"][:12], "--root", tmp_path / "store", TRITON_PRINT_AUTOTUNING="no")
    assert [noted["value"] for noted in notes() if "value" in noted][-1] == "yes"


def test_a_compilers_variable_that_the_run_did_not_have_is_not_there(tmp_path):
    (key,) = bake(tmp_path / "store", "shows TRITON_PRINT_AUTOTUNING").values()
    jitwarm("repro", key["digest"][:12], "--root", tmp_path / "store", TRITON_PRINT_AUTOTUNING="now")
    assert [noted["value"] for noted in notes() if "value" in noted][-1] is None


def test_a_key_that_nobody_planned_and_digits_that_are_too_few_are_usage_errors(tmp_path):
    bake(tmp_path / "store", "builds")
    for digits, words in (("abc", "too short"), ("0" * 12, "no run in")):
        done = jitwarm("repro", digits, "--root", tmp_path / "store")
        assert (done.returncode, words in done.stderr) == (2, True)


def test_the_table_prints_the_command(tmp_path):
    does = json.dumps(["raises"])
    done = jitwarm("bake", "--target", "cuda:90", "--out", tmp_path / "store", "--set", f"faulty.does={does}")
    (line,) = [line for line in done.stdout.splitlines() if "to try it alone: " in line]
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line.partition(": ")[2])], capture_output=True, text=True, check=False
    )
    assert "tile does not divide" in done.stderr
