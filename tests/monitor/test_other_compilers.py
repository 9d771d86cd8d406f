"""CuTeDSL and TileLang: each way in which they compile or load after a start is seen; what is warm is not."""

import json
import os
import sys
import textwrap
import threading
from pathlib import Path

import kits
import pytest

cutlass = pytest.importorskip("cutlass")
pytest.importorskip("tilelang")

import cuda.bindings.driver as cuda  # noqa: E402
import cute_kernels  # noqa: E402
import tilelang_kernels  # noqa: E402
import torch  # noqa: E402
from cutlass import Float32, cute  # noqa: E402
from cutlass.cute.runtime import from_dlpack, make_fake_compact_tensor, make_fake_stream  # noqa: E402

from jitwarm.errors import UnexpectedCompileError  # noqa: E402


def fake(dtype=cutlass.Float32):
    return make_fake_compact_tensor(dtype, (cute.sym_int(),), stride_order=(0,), assumed_align=16)


class One(cute_kernels.Scale):
    name = "scale"

    def get_warmup_keys(self, config):
        return [self.CompileKey(threads=64)]


class OneAdd(tilelang_kernels.LazyAdd):
    name = "add"

    def get_warmup_keys(self, config):
        return [self.CompileKey(256)]


# --- CuTeDSL -----------------------------------------------------------------------------------------------------------


def test_cutedsl_keys_by_its_kernel_and_direct_compiles(start, attempt):
    kernel = One()
    started = start(kernel)
    backend = next(b for b in started.session.registry.backends if b.name == "cutedsl")
    with started.armed():
        assert kernel.compiled(kernel.CompileKey(threads=64)) is not None
        assert not started.compiles
        with backend.pin(started.session.target):  # the device of a server
            attempt(lambda: _through_the_kernel(kernel, 32))
            attempt(lambda: cute.compile(cute_kernels.scale, fake(), Float32(1.0), make_fake_stream(), 128))
            attempt(lambda: cute_kernels.scale(from_dlpack(torch.zeros(64)), Float32(2.0), cuda.CUstream(0), 96))
            thread = threading.Thread(
                target=lambda: cute.compile(cute_kernels.scale, fake(), Float32(1.0), make_fake_stream(), 160), name="t"
            )
            thread.start()
            thread.join()
    by_key, explicit, implicit, threaded = started.compiles
    assert (by_key["kernel"], by_key["differences"]) == ("kit:scale", ("threads: 64 -> 32",))
    assert by_key["line"].startswith("list dtype=float32, threads=32")
    assert (explicit["kernel"], explicit["function"]) == ("kit:scale", "cute_kernels:scale")
    assert "threads=128" in explicit["label"]
    assert implicit["label"].startswith("x=Float32 (64,) strides (1,), factor=Float32")
    assert threaded["thread"] == "t"
    assert all(event["seconds"] > 0 for event in started.compiles)
    assert {event["digest"] for event in started.all("key_used")} == {row.digest for row in started.session.report.rows}


def _through_the_kernel(kernel, threads):
    """As `kernel.compiled` on a device, whose target is known there."""
    key = kernel.CompileKey(threads=threads)
    return kernel.compile(key)


# --- TileLang ----------------------------------------------------------------------------------------------------------


def test_tilelang_lazy_eager_and_direct_compiles_and_threads(start, attempt):
    import tilelang

    kernel = OneAdd()
    started = start(kernel)
    backend = next(b for b in started.session.registry.backends if b.name == "tilelang")
    with started.armed(), backend.pin(started.session.target):
        kernel.compiled(kernel.CompileKey(256))
        assert not started.compiles
        attempt(lambda: tilelang_kernels.lazy_add(N=640))
        attempt(lambda: tilelang_kernels.eager_add.compile(N=128, block=32))
        attempt(lambda: tilelang.compile(tilelang_kernels.lazy_add.get_tir(N=896), out_idx=[-1]))
        thread = threading.Thread(target=attempt, args=(lambda: tilelang_kernels.lazy_add(N=1152),), name="t")
        thread.start()
        thread.join()
    lazy, eager, direct, threaded = started.compiles
    assert (lazy["kernel"], lazy["differences"]) == ("kit:add", ("N: 256 -> 640",))
    assert lazy["function"] == "tilelang_kernels:lazy_add"
    assert (eager["kernel"], eager["function"]) == ("", "tilelang_kernels:eager_add")
    assert (direct["kernel"], direct["function"]) == ("", "?:add")
    assert direct["why"] == "which kernel it belongs to cannot be seen"
    assert threaded["thread"] == "t"


def test_a_tilelang_kernel_from_disk_is_a_reload_and_no_compile(tmp_path):
    script = Path(__file__).parents[1] / "support" / "watched_tilelang.py"
    found = []
    for _ in range(2):
        done = kits.python(script, 384, TILELANG_CACHE_DIR=tmp_path / "cache", CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert found == [
        [["compile", "tilelang_kernels:lazy_add", {"N": "384"}]],
        [["reload", "tilelang_kernels:lazy_add", {"N": "384"}]],
    ]


# --- a compiler that is imported late ----------------------------------------------------------------------------------


def test_a_compiler_that_is_imported_after_arming_is_watched_as_well(tmp_path):
    """A library often imports its kernels' compiler with the first request."""
    done = kits.python(
        "-c",
        textwrap.dedent("""
            import json, sys
            from jitwarm import Target
            from jitwarm.backends._tilelang import TileLangBackend
            backend, seen = TileLangBackend(), []
            with backend.watch(seen.append):
                assert "tilelang" not in sys.modules
                import tilelang_kernels
                with backend.pin(Target("cuda", "90")):
                    tilelang_kernels.lazy_add(N=384)
            print(json.dumps([one.what for one in seen]), type(sys.modules["tilelang"].__loader__).__name__)
        """),
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parents[1] / "support"), *filter(None, sys.path)]),
        TILELANG_CACHE_DIR=tmp_path / "cache",
        CUDA_VISIBLE_DEVICES="",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '["compile"] SourceFileLoader'


def test_in_error_mode_every_compiler_raises(start, attempt):
    cute_kernel, add = One(), OneAdd()
    started = start(cute_kernel, add, monitor="error")
    backends = {backend.name: backend for backend in started.session.registry.backends}
    with (
        started.armed(),
        backends["cutedsl"].pin(started.session.target),
        backends["tilelang"].pin(started.session.target),
    ):
        for launch in (
            lambda: cute_kernel.compile(cute_kernel.CompileKey(threads=160)),
            lambda: tilelang_kernels.lazy_add(N=1408),
        ):
            assert isinstance(attempt(launch), UnexpectedCompileError)
