"""8 and 16 ranks at a barrier over the keys of one compiler: each key is compiled once, and warm in every rank.

Four ranks over all three compilers are in `test_ranks_of_a_node`.
"""

import json
import os
import sys

import kits
import pytest
from node import compiles, ranks
from processes import outcomes

PLUGIN = """
from jitwarm import hookimpl
from {module} import {kernel}

class Many({kernel}):
    CompileKey = {kernel}.CompileKey

    def get_warmup_keys(self, config):
        return [{key} for n in range({n_keys})]

@hookimpl
def jitwarm_kernels():
    return [Many()]
"""
KERNELS = {
    "triton": {
        "module": "triton_kernels",
        "kernel": "Scale",
        "key": 'self.CompileKey(dtype=("float32", "float16")[n % 2], block=32 << n // 2 % 5, num_warps=1 << n // 10)',
    },
    "cutedsl": {"module": "cute_kernels", "kernel": "Scale", "key": "self.CompileKey(threads=32 * (n + 1))"},
    "tilelang": {"module": "tilelang_kernels", "kernel": "LazyAdd", "key": "self.CompileKey(256 * (n + 1))"},
}


@pytest.mark.parametrize(
    ("backend", "n_keys", "n_ranks"),
    [
        ("triton", 40, 8),
        pytest.param("triton", 40, 16, marks=pytest.mark.soak),
        pytest.param("cutedsl", 8, 8, marks=pytest.mark.soak),
        pytest.param("cutedsl", 8, 16, marks=pytest.mark.soak),
        pytest.param("tilelang", 4, 8, marks=pytest.mark.soak),
        pytest.param("tilelang", 4, 16, marks=pytest.mark.soak),
    ],
)
def test_each_key_is_compiled_once_and_warm_in_every_rank(tmp_path, monkeypatch, backend, n_keys, n_ranks):
    kits.install(tmp_path / "site", "many", PLUGIN.format(**KERNELS[backend], n_keys=n_keys))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
    with ranks(tmp_path / "store", n_ranks, "many") as started:
        reports = [json.loads(process.communicate(timeout=500)[0]) for process in started]
    found = compiles(tmp_path / "store")
    assert [report["refused"] for report in reports] == [[]] * n_ranks
    assert len(found) == n_keys
    assert set(found.values()) == {1}
    assert sum(report["n_compiles"] for report in reports) == n_keys
    for report in reports:
        assert len(outcomes(report)) == n_keys
        assert set(outcomes(report)) <= {"compiled", "loaded"}
        assert report["n_warm"] == n_keys
