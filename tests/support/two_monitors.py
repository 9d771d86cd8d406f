"""Arm vLLM's JIT monitor and jitwarm's in one order or the other, then compile with each DSL as a launch would: who saw it?

    python two_monitors.py ours|theirs

The argument says who comes first. In the end ours leaves, and one more kernel compiles. vLLM's monitor leaves its Triton hook out
where Triton has no backend for the platform, as on CPU: here it is told that there is one. Prints JSON.
"""

import contextlib
import json
import logging
import sys

import cute_kernels
import cutlass
import tilelang_kernels
import torch
import triton_kernels
from cutlass import Float32, cute
from cutlass.cute.runtime import make_fake_compact_tensor, make_fake_stream
from vllm.utils import jit_monitor

from jitwarm import Target
from jitwarm.backends._cutedsl import CuteBackend
from jitwarm.backends._tilelang import TileLangBackend
from jitwarm.backends._triton import TritonBackend
from jitwarm.monitor import Monitor


class Heard(logging.Handler):
    """What vLLM's monitor warns of."""

    def __init__(self):
        super().__init__()
        self.backends = []

    def emit(self, record):
        if "during inference: " in record.getMessage():
            self.backends.append(record.getMessage().split()[0].lower())


def launch(n):
    """As far as it goes without a GPU."""
    with contextlib.suppress(Exception):
        triton_kernels.flagged[(1,)](torch.empty(1), FLAG=n)
    x = make_fake_compact_tensor(cutlass.Float32, (cute.sym_int(),), stride_order=(0,), assumed_align=16)
    cute.compile(cute_kernels.scale, x, Float32(1.0), make_fake_stream(), 32 * n)
    tilelang_kernels.lazy_add(N=128 * n)


def main(first):
    jit_monitor.HAS_TRITON = True
    heard, events = Heard(), []
    logging.getLogger("vllm").addHandler(heard)
    target, backends = Target("cuda", "90"), [TritonBackend(), CuteBackend(), TileLangBackend()]
    monitor = Monitor(backends, lambda event, **fields: events.append({"event": event, **fields}))
    with contextlib.ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend.pin(target))
        if first == "ours":
            monitor.__enter__()
            jit_monitor.activate(verbose=True)
        else:
            jit_monitor.activate(verbose=True)
            monitor.__enter__()
        launch(2)
        monitor.__exit__(None, None, None)
        with_both = list(heard.backends)
        launch(3)
    ours = [event["backend"] for event in events if event["event"] == "unexpected_compile"]
    print(json.dumps({"ours": ours, "theirs": with_both, "theirs_alone": heard.backends[len(with_both) :]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
