"""A server that the real monitor watched: what was used, what compiled while serving and why, and what the gate makes of it."""

import json
import os
import sys
import textwrap
from pathlib import Path

import kits
import pytest

from jitwarm.reports.coverage import of_kernels
from jitwarm.reports.folding import read_starts
from jitwarm.reports.gate import Limits, breaches, subjects

pytest.importorskip("triton")

KERNELS = Path(__file__).parents[1] / "vllm_engine" / "packages" / "alpha_kernels.py"
SERVER = """
import contextlib, torch
import jitwarm
from jitwarm.errors import NoDeviceError
jitwarm.warm({"dtype": "float32", "max_num_batched_tokens": 64}, target="cuda:90", monitor="warn")
from alpha_kernels import Scale
for n in (64, 24):
    with contextlib.suppress(NoDeviceError):
        Scale()(torch.empty(64), torch.empty(64), n, 2.0, grid=(1,), n=n, dtype="float32")
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The store of a server that launched a warm key and one that nobody had declared."""
    directory = tmp_path_factory.mktemp("served")
    kits.install(directory / "site", "alpha_kernels", KERNELS.read_text(), plugin="alpha")
    path = os.pathsep.join([str(directory / "site"), *filter(None, sys.path)])
    variables = {"CUDA_VISIBLE_DEVICES": "", "JITWARM_CACHE_DIR": directory / "store", "JITWARM_PLUGINS": "alpha"}
    done = kits.python("-c", textwrap.dedent(SERVER), cwd=directory, PYTHONPATH=path, **variables)
    assert done.returncode == 0, done.stderr
    return directory / "store"


def test_what_compiled_while_serving_is_there_with_its_reason(served):
    (start,) = read_starts([], served)
    assert start.is_complete
    assert start.watched_by == {"jitwarm": "warn"}
    (found,) = start.unexpected
    assert (found.kernel, found.plugin, found.n) == ("alpha:Scale", "alpha", 1)
    assert any("n 24 is outside [16, 64] by 16" in text for text in (found.why, *found.differences))
    assert "test_served" in found.site or "<string>" in found.site
    (row,) = [row for row in of_kernels(start) if row.name == "alpha:Scale"]
    assert (row.missed, row.warmed) == (1, row.expected)


def test_it_breaks_the_gate_of_a_test_run(served):
    (subject,) = subjects([], served)
    (broken,) = breaches(subject, Limits(max_cold=0))
    assert [item.startswith("unexpected compile of alpha:Scale") for item in broken.items] == [True]
    assert not list(breaches(subject, Limits(max_cold=1, budget=10)))


def test_every_line_of_a_real_log_is_understood(served):
    (start,) = read_starts([], served)
    assert (start.n_unreadable, start.n_foreign) == (0, 0)
    names = {
        json.loads(line)["event"] for file in served.glob("events/*/*.jsonl") for line in file.read_text().splitlines()
    }
    assert {"monitor_armed", "unexpected_compile", "monitor_ended"} <= names
