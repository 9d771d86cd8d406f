"""The modules beside the tests (`published`, `driven`) are imported by name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module")
def wheel_with_deep_gemm():
    """(vLLM's Python files, what they import, their DeepGEMM) of a released wheel; skipped where they cannot be had."""
    from benchmarks import vllm_wheel

    try:
        return vllm_wheel.files(), vllm_wheel.dependencies(), vllm_wheel.deep_gemm()
    except vllm_wheel.UnavailableError as exc:
        pytest.skip(f"no vLLM {vllm_wheel.VERSION} to compare with: {exc}")


@pytest.fixture
def library(wheel_with_deep_gemm, tmp_path, monkeypatch):
    """DeepGEMM as a package that can be found, as vLLM takes one that is installed beside it."""
    path = tmp_path / "path"
    path.mkdir()
    (path / "deep_gemm").symlink_to(wheel_with_deep_gemm[2])
    monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("PYTHONPATH", str(path))
    from jitwarm_vllm import deep_gemm_process

    deep_gemm_process.library_version.cache_clear()
    yield path
    deep_gemm_process.library_version.cache_clear()
