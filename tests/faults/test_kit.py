"""The public kit itself: what it refuses, what it does outside of compile processes, and its page."""

import os
import subprocess
import sys

import fault_table
import pytest
from kits import Plugin
from processes import SUPPORT

from jitwarm import Target
from jitwarm.errors import UsageError
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings
from jitwarm.testing import FAULTS, FaultyKernel


def test_there_are_faults_of_every_outcome_and_each_says_what_it_does():
    assert len(FAULTS) >= 25
    assert {fault.outcome for fault in FAULTS.values()} == {
        "compiled",
        "skipped",
        "failed",
        "timed_out",
        "unresolved",
    }
    for name, fault in FAULTS.items():
        assert fault.name == name
        assert fault.what_it_does.endswith(".")
        assert bool(fault.says) == (fault.outcome != "compiled")


def test_a_misspelt_fault_is_refused_with_the_nearest_one():
    with pytest.raises(UsageError, match="there is no fault 'segfault'") as caught:
        FaultyKernel("segfault")
    assert caught.value.hint == "did you mean 'segfaults'?"


def test_in_a_process_that_is_no_compile_process_a_fault_does_no_harm(tmp_path, monkeypatch):
    """Here it is this one: every fault that could end, stop or change it is told and not had."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asked = Asked(settings=Settings(plugins=(), isolate=False))
    session = Session(asked, Target("cuda", "90"), root=tmp_path / "store")
    session.registry.add("faulty", Plugin(FaultyKernel(*FAULTS, backend="workshop")), "faulty 1.0")
    state = (os.umask(0o22), os.getcwd(), dict(os.environ))  # noqa: PTH109
    report = session.run(session.plan())
    session.finish()
    assert (os.umask(state[0]), os.getcwd(), dict(os.environ)) == state  # noqa: PTH109
    for row, fault in zip(report.rows, FAULTS.values(), strict=True):
        is_had = fault.is_harmless or fault.outcome == "compiled"
        assert row.outcome == (fault.outcome if is_had else "unresolved")
        assert (fault.says if is_had else "this fault is for compile processes") in (row.error or "")


def test_the_table_of_the_page_is_up_to_date():
    assert fault_table.table() in fault_table.PAGE.read_text(), f"python {SUPPORT.name}/fault_table.py writes it"


def test_the_kit_loads_no_gpu_stack():
    loaded = "import sys, jitwarm.testing; print(sorted({'torch', 'triton', 'cutlass', 'tilelang'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
