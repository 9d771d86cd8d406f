"""torch.compile and FlashInfer, which no adapter owns, are seen when they compile, and not when they run what is compiled."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from jitwarm.monitor import Monitor  # noqa: E402

needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs g++ on a CPU")


@pytest.fixture
def armed():
    """Arm a monitor. Returns the unexpected compiles that it tells."""
    events = []

    def arm(**arguments):
        return Monitor([], lambda event, **fields: events.append({"event": event, **fields}), **arguments)

    arm.compiles = lambda: [event for event in events if event["event"] == "unexpected_compile"]
    return arm


@needs_a_compiler
def test_a_graph_that_torch_compiles_is_seen_and_its_next_call_is_not(armed):
    def double(x):
        return x * 2 + 1

    compiled = torch.compile(double, dynamic=False)
    compiled(torch.ones(8))
    with armed():
        compiled(torch.ones(8))
        assert not armed.compiles()
        compiled(torch.ones(16))
    (event,) = armed.compiles()
    assert (event["backend"], event["kernel"]) == ("inductor", "")
    assert event["seconds"] > 0
    assert "test_libraries.py" in event["site"]
    compiled(torch.ones(24))
    assert len(armed.compiles()) == 1


@needs_a_compiler
def test_in_error_mode_the_call_raises(armed):
    """Within an exception of torch's own, which names ours."""
    compiled = torch.compile(lambda x: x - 3, dynamic=False)
    with armed(mode="error"), pytest.raises(Exception, match=r"UnexpectedCompileError: torch\.compile"):
        compiled(torch.ones(8))


def test_a_module_that_flashinfer_builds_is_seen(armed, tmp_path, monkeypatch):
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(tmp_path))
    monkeypatch.setenv("FLASHINFER_CUDA_ARCH_LIST", "9.0a")
    core = pytest.importorskip("flashinfer.jit.core")
    pytest.importorskip("ninja")
    for name in ("cuda", "cudart"):  # FlashInfer links every module against them; where there is no GPU they are empty
        library = tmp_path / f"lib{name}.so"
        subprocess.run(["gcc", "-shared", "-x", "c", "/dev/null", "-o", library], check=True)
    monkeypatch.setenv("LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # of ninja
    source = tmp_path / "nothing.cc"
    source.write_text('extern "C" int nothing() { return 0; }\n')
    spec = core.gen_jit_spec("nothing", [source])
    with armed():
        spec.build()
    (event,) = armed.compiles()
    assert (event["backend"], event["function"]) == ("flashinfer", "flashinfer:nothing")
    assert spec.jit_library_path.exists()
