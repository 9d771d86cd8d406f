"""`no_cold_compiles` without pytest's marker, at a real compiler."""

import pytest

triton = pytest.importorskip("triton")

import triton_kernels  # noqa: E402

from jitwarm import Target  # noqa: E402
from jitwarm.backends._triton import TritonBackend  # noqa: E402
from jitwarm.contract.backend import TargetScope  # noqa: E402
from jitwarm.errors import ColdCompileError, NoDeviceError  # noqa: E402
from jitwarm.testing import no_cold_compiles  # noqa: E402

KERNEL = triton_kernels.Scale()
TARGET = Target("cuda", "90")


@pytest.fixture(autouse=True)
def _cold(tmp_path, monkeypatch):
    """Nothing is in this process or on disk."""
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    triton_kernels.scale.device_caches.clear()
    with TritonBackend().pin(TARGET):
        yield


class Tensor:
    dtype = "fp32"

    def data_ptr(self):
        return 0


def launch():
    with pytest.raises(NoDeviceError):
        KERNEL.launch(KERNEL.CompileKey(), Tensor(), Tensor(), 32, 1.0, grid=(1,))


def test_a_compile_is_an_assertion_that_says_which_and_the_warm_launch_is_none():
    with (
        pytest.raises(AssertionError, match=r"1 cold compile\ntriton: triton_kernels:scale compiled") as caught,
        no_cold_compiles(),
    ):
        launch()
    assert isinstance(caught.value, ColdCompileError)
    assert "allow='triton_kernels:scale'" in caught.value.hint
    with no_cold_compiles():
        launch()


def test_warming_by_jitwarm_does_not_count():
    with no_cold_compiles():
        with TargetScope(TARGET):  # as within `jitwarm.warm`
            KERNEL.compile(KERNEL.CompileKey())
        launch()


def test_what_is_allowed_passes_and_is_not_listed():
    with no_cold_compiles(allow="triton_kernels:*") as watch:
        launch()
    assert watch.compiles == []


def test_an_error_of_the_body_is_not_replaced():
    watch = no_cold_compiles()

    def body():
        with watch:
            launch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert [compiled.function for compiled in watch.compiles] == ["triton_kernels:scale"]


def test_nothing_is_watched_afterwards():
    with no_cold_compiles() as watch:
        pass
    launch()
    assert watch.compiles == []
