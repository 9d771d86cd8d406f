"""Fixtures for adapters: a private compiler cache, and the target pinned as a session pins it."""

import pytest

from jitwarm import Target
from jitwarm.contract.backend import TargetScope


@pytest.fixture
def target():
    return Target("cuda", "90")


@pytest.fixture
def triton_on_sm90(tmp_path, monkeypatch, target):
    """The Triton adapter, pinned to cuda:90, with an empty disk cache and empty in-process caches."""
    pytest.importorskip("triton")
    import triton_kernels
    from triton.runtime.jit import JITFunction

    from jitwarm.backends._triton import TritonBackend

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    for value in vars(triton_kernels).values():
        if isinstance(value, JITFunction):
            value.device_caches.clear()
    backend = TritonBackend()
    with TargetScope(target), backend.pin(target):
        yield backend
