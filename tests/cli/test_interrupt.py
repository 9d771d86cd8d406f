"""Ctrl-C and SIGTERM in the middle of a bake: no process, no lock and no torn file is left, and the next bake goes on."""

import json
import os
import signal
import subprocess
import sys

import fault_kit
import kits
import pytest
from processes import marked, wait_until

from jitwarm.store.locks import locked

# A shell's job in the background ignores Ctrl-C, and so does what it starts.
BAKE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from jitwarm.cli import main
main()
"""


@pytest.fixture(autouse=True)
def faulty(tmp_path, monkeypatch, site):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("FAULTY_NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("JITWARM_PLUGINS", "faulty,example")
    kits.install(site, "faulty", fault_kit.PLUGIN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *sys.path]))


def bake(root, kernels, *does):
    command = [sys.executable, "-c", BAKE, "bake", "--target", "cuda:90", "--out", str(root), "--json"]
    command += ["--kernel", kernels, "--set", f"faulty.does={json.dumps(does)}", "--set", "example.hidden_sizes=[64]"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def started_by_a_key():
    return any(command.startswith("sleep") for command in marked().values())


# The faulty kernel, and the example's norm, which is Triton's; or all of the example's.
@pytest.mark.parametrize(
    ("number", "status", "kernels"),
    [(signal.SIGTERM, 143, "*n[eo]*"), pytest.param(signal.SIGINT, 130, "*[lm]", marks=pytest.mark.soak)],
)
def test_an_interrupted_bake_leaves_nothing_and_the_next_one_goes_on(tmp_path, number, status, kernels):
    root = tmp_path / "store"
    with bake(root, kernels, "starts a process and sleeps") as started:
        try:
            wait_until(started_by_a_key, "a key is being compiled", 240)
            wait_until(lambda: list(root.glob("manifest/*.json")), "a key of a real compiler is built", 240)
            started.send_signal(number)
            _, errors = started.communicate(timeout=120)
        finally:
            started.kill()
    assert started.returncode == status
    assert "Traceback" not in errors
    wait_until(lambda: not marked(), "every process has ended")
    for file in (root / "locks").iterdir():
        with locked(file, 0.0):
            pass
    assert not [path for path in root.rglob(".*") if path.is_file()]
    kept = list(
        root.glob("manifest/*.json")
    )  # an interrupted load may look like that of a damaged entry, which is dropped
    for manifest in kept:
        entry = json.loads(manifest.read_text())
        assert all((root / name).is_file() for name in entry["files"])
    with bake(root, kernels, "builds") as second:
        report = json.loads(second.communicate(timeout=240)[0])
    outcomes = {key["outcome"] for kernel in report["kernels"] for key in kernel["keys"]}
    assert outcomes <= {"compiled", "loaded"}
    assert "loaded" in outcomes or not kept
