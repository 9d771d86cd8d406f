"""The guard against launches, at the real compilers: a launch is told and refused, a compile is not."""

import contextlib

import pytest
from kits import python

from jitwarm import Target
from jitwarm.contract.backend import TargetScope
from jitwarm.errors import NoDeviceError
from jitwarm.testing.launches import watched_launches

TARGET = Target("cuda", "90")


@pytest.fixture
def watched():
    """What is seen while the test runs."""
    seen = []
    with watched_launches(seen.append):
        yield seen


@contextlib.contextmanager
def pinned(backend):
    with TargetScope(TARGET), backend.pin(TARGET):
        yield


def test_a_triton_launch_is_refused_with_its_place_and_a_warmup_is_not(watched, tmp_path, monkeypatch):
    pytest.importorskip("triton")
    import triton_kernels

    from jitwarm.backends._triton import TritonBackend

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = triton_kernels.Scale()
    with pinned(TritonBackend()):
        kernel.compile(kernel.CompileKey())
        assert watched == []
        with pytest.raises(NoDeviceError, match="the Triton kernel scale was launched while keys are made"):
            triton_kernels.scale[(1,)](None, None, 16, 1.0, BLOCK=64)
    (touch,) = watched
    assert (touch.kind, touch.what) == ("launch", "the Triton kernel scale")
    assert "test_launches.py:" in touch.site


def test_a_cutedsl_call_is_refused_and_a_compile_is_not(watched):
    pytest.importorskip("cutlass")
    import cute_kernels

    from jitwarm.backends._cutedsl import CuteBackend

    kernel = cute_kernels.Scale()
    with pinned(CuteBackend()):
        kernel.compile(kernel.CompileKey())
        assert watched == []
        with pytest.raises(NoDeviceError, match="the CuTeDSL function"):
            kernel.launch(kernel.CompileKey(), None, 1.0)
    assert [touch.kind for touch in watched] == ["launch"]


def test_a_tilelang_call_is_refused_and_a_compile_is_not(watched, tmp_path, monkeypatch):
    pytest.importorskip("tilelang")
    import tilelang_kernels

    from jitwarm.backends._tilelang import TileLangBackend

    monkeypatch.setenv("TILELANG_CACHE_DIR", str(tmp_path))
    with pinned(TileLangBackend()):
        add = tilelang_kernels.lazy_add(N=256)
        assert watched == []
        with pytest.raises(NoDeviceError, match="the TileLang kernel add"):
            add(None, None)
    assert [touch.kind for touch in watched] == ["launch"]


LATE = """
import sys
from jitwarm.testing.launches import watched_launches
seen = []
with watched_launches(seen.append):
    assert "torch" not in sys.modules
    import torch
    assert not seen
    def ask():
        try:
            torch.cuda.current_device()
        except Exception:
            pass
    ask()
print(seen[0].kind, seen[0].site)
"""


def test_torch_that_is_imported_late_is_watched_and_the_place_is_not_in_torch():
    pytest.importorskip("torch")
    done = python("-c", LATE, CUDA_VISIBLE_DEVICES="")
    assert done.stdout.split()[0] == "cuda", done.stderr
    assert done.stdout.strip().endswith("in ask")


def test_afterwards_the_compilers_are_as_they_were():
    pytest.importorskip("triton")
    from triton.runtime.jit import JITFunction

    before = JITFunction.run
    with watched_launches(lambda _: None):
        assert JITFunction.run is not before
    assert JITFunction.run is before
