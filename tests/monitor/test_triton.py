"""Each way in which Triton compiles or loads after a start is seen, named and explained; a warm launch is not."""

import threading

import pytest

triton = pytest.importorskip("triton")
torch = pytest.importorskip("torch")

import triton_kernels  # noqa: E402
from triton_kernels import Flagged, Scale, flagged, scale  # noqa: E402

from jitwarm import IntClass, IntRange, trace_dispatch  # noqa: E402
from jitwarm.errors import NoDeviceError, UnexpectedCompileError  # noqa: E402

pytestmark = pytest.mark.triton


class Traced(Scale):
    name = "traced"

    def dispatch(self, *, n: int, dtype: str = "float32"):
        block = 64 if n <= 64 else 128 if n <= 8192 else 256
        return self.CompileKey(dtype=dtype, n=IntClass.of(n), block=block)

    def get_warmup_keys(self, config):
        return trace_dispatch(self.dispatch, n=IntRange(16, 8193, 16), dtype=config.dtype)


@pytest.fixture(autouse=True)
def _empty_caches():
    for value in vars(triton_kernels).values():
        if hasattr(value, "device_caches"):
            value.device_caches.clear()


@pytest.fixture
def tensors():
    return torch.empty(64), torch.empty(64)


def test_a_warm_launch_is_no_event(start, attempt, tensors):
    kernel = Traced()
    started = start(kernel)
    with started.armed():
        for n in (16, 64, 8192):
            assert isinstance(attempt(lambda n=n: kernel(*tensors, n, 2.0, grid=(1,), n=n)), NoDeviceError)
    assert not started.compiles
    assert not started.all("reloaded")


def test_an_input_outside_the_declared_range_is_named_with_the_line_to_write(start, attempt, tensors):
    kernel = Traced()
    started = start(kernel)
    with started.armed() as monitor:
        attempt(lambda: kernel(*tensors, 8208, 2.0, grid=(1,), n=8208))
    (event,) = started.compiles
    assert event["kernel"] == "kit:traced"
    assert event["plugin"] == "kit"
    assert event["function"] == "triton_kernels:scale"
    assert event["label"] == "dtype=float32, aligned=True, n=MULTIPLE_OF_16, block=256, num_warps=4, num_stages=3"
    assert event["nearest"] == "dtype=float32, aligned=True, n=MULTIPLE_OF_16, block=128, num_warps=4, num_stages=3"
    assert event["differences"] == ("n 8208 is outside [16, 8192] by 16",)
    assert event["line"].startswith("n=IntRange(16, 8209, 16) in get_warmup_keys of Traced")
    assert "monitor/test_triton.py:" in event["site"]
    assert event["seconds"] > 0
    assert monitor.n_unexpected == 1


def test_a_step_that_the_input_does_not_fit_is_not_kept(start, attempt, tensors):
    kernel = Traced()
    started = start(kernel)
    with started.armed():
        attempt(lambda: kernel(*tensors, 8193, 2.0, grid=(1,), n=8193))
    assert "n=IntRange(16, 8194) in" in started.compiles[0]["line"]


def test_a_direct_launch_is_compared_by_what_triton_specialized_on(start, attempt, tensors):
    started = start(Traced())
    with started.armed():
        attempt(lambda: scale[(1,)](*tensors, 63, 2.0, BLOCK=64, num_warps=4, num_stages=3))
    (event,) = started.compiles
    assert (event["kernel"], event["differences"]) == ("kit:traced", ("n: i32, multiple of 16 -> i32",))
    assert event["nearest"].startswith("dtype=float32, aligned=True, n=MULTIPLE_OF_16, block=64")


def test_a_function_that_nobody_declares_says_so(start, attempt, tensors):
    started = start(Traced())
    with started.armed():
        attempt(lambda: flagged[(1,)](tensors[0], FLAG=7))
    (event,) = started.compiles
    assert (event["kernel"], event["function"]) == ("", "triton_kernels:flagged")
    assert event["why"] == "kernel not declared by any plugin"
    assert "FLAG=7" in event["label"]


def test_a_key_that_the_start_left_cold_says_why(start, attempt, tensors):
    kernel = Traced()
    started = start(kernel, max_keys=1)
    cold = next(row for row in started.session.report.rows if row.outcome == "skipped")
    n = 64 if "block=64" in cold.label else 128
    with started.armed():
        attempt(lambda: kernel(*tensors, n, 2.0, grid=(1,), n=n))
    (event,) = started.compiles
    assert event["digest"] == cold.digest
    assert event["why"].startswith("this key was expected, but the start left it cold: skipped")


def test_a_launch_that_spells_its_options_otherwise_is_a_reload(start, attempt, tensors):
    started = start(Traced())
    with started.armed():
        attempt(lambda: scale[(1,)](*tensors, 64, 2.0, BLOCK=64, num_stages=3, num_warps=4))
    assert not started.compiles
    (event,) = started.all("reloaded")
    assert event["kernel"] == "kit:traced"
    assert event["label"].startswith("dtype=float32")


def test_compiles_of_other_threads_are_seen(start, attempt, tensors):
    started = start(Traced())
    with started.armed():
        launch = lambda: flagged[(1,)](tensors[0], FLAG=3)  # noqa: E731 - launched elsewhere
        thread = threading.Thread(target=attempt, args=(launch,), name="worker")
        thread.start()
        thread.join()
    assert [event["thread"] for event in started.compiles] == ["worker"]


def test_in_error_mode_the_launch_raises_with_the_explanation(start, attempt, tensors):
    kernel = Traced()
    started = start(kernel, monitor="error")
    with started.armed():
        raised = attempt(lambda: kernel(*tensors, 8208, 2.0, grid=(1,), n=8208))
        assert isinstance(attempt(lambda: kernel(*tensors, 64, 2.0, grid=(1,), n=64)), NoDeviceError)
    assert isinstance(raised, UnexpectedCompileError)
    for part in ("kit:traced", "n 8208 is outside [16, 8192]", "IntRange(16, 8209, 16)"):
        assert part in str(raised)
    assert len(started.compiles) == 1


def test_an_autotuned_launch_is_one_tuning_and_a_compile_per_configuration(start, tensors):
    """The search is Triton's own; what times a configuration stands in for the GPU that is not here."""
    timed = []

    def stand_in_for_timing(_call, quantiles):
        timed.append(quantiles)
        return [float(len(timed))] * 3

    configs = [triton.Config({"BLOCK": block}, num_warps=4) for block in (32, 64)]
    tuned = triton.autotune(configs, key=["n"], do_bench=stand_in_for_timing)(scale)
    started = start(Traced())
    with started.armed(), pytest.raises(NoDeviceError):
        tuned[(1,)](*tensors, 64, 2.0)
    assert len(timed) == 2
    tuning, *compiles = started.compiles
    assert (tuning["what"], tuning["function"], tuning["label"]) == ("tuning", "triton_kernels:scale", "n=64")
    assert [event["what"] for event in compiles] == ["compile"]  # the best one; the stand-in compiles nothing


def test_nothing_is_seen_before_it_is_armed_nor_after(start, attempt, tensors):
    started = start(Traced())
    attempt(lambda: flagged[(1,)](tensors[0], FLAG=11))
    with started.armed():
        pass
    attempt(lambda: flagged[(1,)](tensors[0], FLAG=12))
    assert not started.compiles
    assert triton.knobs.compilation.listener is None


def test_our_own_later_compiles_are_none_of_its_business(start):
    started = start(Traced())
    with started.armed():
        again = start(Flagged())
    assert again.outcomes == {"compiled": 3}
    assert not started.compiles


def test_used_keys_are_told_apart_from_those_that_nobody_asks_for(start, attempt, tensors):
    kernel = Traced()
    started = start(kernel)
    with started.armed():
        attempt(lambda: kernel(*tensors, 64, 2.0, grid=(1,), n=64))
    used = {event["digest"] for event in started.all("key_used")}
    assert [row.label for row in started.session.report.rows if row.digest in used] == [
        "dtype=float32, aligned=True, n=MULTIPLE_OF_16, block=64, num_warps=4, num_stages=3"
    ]
    assert not started.all("uses_unknown")


def test_module_loads_are_told(start, tensors):
    """The hook is Triton's own; nothing here has a device on which to load."""
    started = start(Traced())
    with started.armed():
        triton.knobs.runtime.kernel_load_start_hook(None, None, "scale", {}, "hash")
    triton.knobs.runtime.kernel_load_start_hook(None, None, "scale", {}, "hash")
    assert [event["function"] for event in started.all("module_loaded")] == ["scale"]
