"""A warm launch pays nothing for the monitor: it executes the same bytecodes, one for one, with it and without."""

import gc
import sys
from collections import Counter

import pytest

triton = pytest.importorskip("triton")
torch = pytest.importorskip("torch")
pytest.importorskip("cutlass")
pytest.importorskip("tilelang")

import cute_kernels  # noqa: E402
import tilelang_kernels  # noqa: E402
import triton_kernels  # noqa: E402

from jitwarm.errors import NoDeviceError  # noqa: E402


class Warm(triton_kernels.Scale):
    name = "warm"

    def dispatch(self, *, n: int):
        return self.CompileKey()

    def get_warmup_keys(self, config):
        return [self.CompileKey()]


class WarmCute(cute_kernels.Scale):
    name = "warm_cute"

    def get_warmup_keys(self, config):
        return [self.CompileKey(threads=64)]


class WarmAdd(tilelang_kernels.LazyAdd):
    name = "warm_add"

    def get_warmup_keys(self, config):
        return [self.CompileKey(1664)]


def bytecodes(launch):
    """How often each code object runs how many bytecodes while `launch` does, as far as it goes without a GPU."""
    counts = Counter()

    def trace(frame, event, _):
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            counts[frame.f_code.co_qualname] += 1
        return trace

    before = sys.gettrace()
    gc.disable()  # what it finds to finalize, of whichever test, is no part of the launch
    sys.settrace(trace)
    try:
        launch()
    except NoDeviceError:
        pass
    finally:
        sys.settrace(before)
        gc.enable()
    return counts


@pytest.mark.parametrize("mode", ["warn", "error", "record"])
def test_a_warm_launch_executes_the_same_bytecodes_with_and_without(start, mode):
    kernel, cute_kernel, add = Warm(), WarmCute(), WarmAdd()
    started = start(kernel, cute_kernel, add, monitor=mode)
    x, out = torch.empty(64), torch.empty(64)
    launches = {
        "triton": lambda: kernel.launch(kernel.CompileKey(), x, out, 64, 2.0, grid=(1,)),
        "jit function": lambda: triton_kernels.scale[(1,)](x, out, 64, 2.0, BLOCK=64, num_warps=4, num_stages=3),
        "cutedsl": lambda: cute_kernel.compiled(cute_kernel.CompileKey(threads=64)),
        "tilelang": lambda: add.compiled(add.CompileKey(1664)),
        "factory": lambda: tilelang_kernels.lazy_add(N=1664),
    }
    for launch in launches.values():
        bytecodes(launch)  # the first launch of each fills tables, with the monitor and without
    without = {name: bytecodes(launch) for name, launch in launches.items()}
    with started.armed():
        for launch in launches.values():
            bytecodes(launch)  # the first use after arming is noted by a table
        armed = {name: bytecodes(launch) for name, launch in launches.items()}
    assert {name: armed[name] - without[name] for name in launches} == {name: Counter() for name in launches}
    assert armed == without
    assert all(sum(counts.values()) > 20 for counts in without.values())
    assert not started.compiles
