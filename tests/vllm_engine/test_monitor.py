"""After the start, in a real engine: what compiles is explained, recorded, learned, and warm at the next start."""

import json
import os
import tomllib
from pathlib import Path

import kits
import pytest
from engine_kit import IN_ONE_PROCESS

pytestmark = pytest.mark.vllm

SUPPORT = Path(__file__).parents[1] / "support"
ARMED = {"worker_cls": "engine_worker.MonitoredCPUWorker"}
CALLS = [["launch_scale", [64]], ["launch_scale", [24]], ["use_triton", [256]]]


def test_what_compiles_while_serving_is_recorded_learned_and_gone_at_the_next_start(start_engine, site, tmp_path):
    """`alpha` declares multiples of 16 only, and serving sends 24; and a block size that only a caller of its own has."""
    first = start_engine(CALLS, ARMED, JITWARM_MONITOR="record", **IN_ONE_PROCESS)
    assert [answer.partition(":")[0] for [answer] in first.answer["calls"]] == ["launched", "raised", "raised"]
    by_key, by_function = first.all("unexpected_compile")
    assert (by_key["kernel"], by_key["rank"]) == ("alpha:Scale", 0)
    assert by_key["differences"] == ["n 24 is outside [16, 128] by 16"]
    assert by_key["line"].startswith("n=IntRange(16, 129, 8) in get_warmup_keys of Scale")
    assert "engine_worker.py" in by_key["site"]
    assert (by_function["kernel"], by_function["differences"]) == ("alpha:Scale", ["BLOCK: 64 -> 256"])
    assert sum("compiled after the start" in line for line in first.lines) == 2
    armed = [event["by"] for event in first.all("monitor_armed")]
    assert armed == ["vllm", "jitwarm"]

    file = tmp_path / "jitwarm.lock.toml"
    printed = kits.python(
        "-m", "jitwarm", "learn", first.store, "--out", file,
        JITWARM_CACHE_DIR=first.store, JITWARM_PLUGINS="alpha,beta", PYTHONPATH=os.pathsep.join([str(site), str(SUPPORT)]),
    )  # fmt: skip
    assert printed.returncode == 0, printed.stderr
    document = tomllib.loads(file.read_text())
    assert [entry["kernel"] for entry in document["key"]] == ["alpha:Scale"]
    assert [entry["function"] for entry in document["function"]] == ["alpha_kernels:scale"]

    second = start_engine(
        CALLS, ARMED, store="another", JITWARM_MONITOR="error", JITWARM_LEARNED_KEYS=str(file), **IN_ONE_PROCESS
    )
    assert [answer for [answer] in second.answer["calls"]] == ["launched", "launched", "passed"]
    assert second.all("unexpected_compile") == []
    assert second.all("reloaded") == []
    assert second.outcomes()["triton:learned"] == ["compiled"]


def test_what_vllms_monitor_stops_before_it_compiles_is_explained_as_well(start_engine):
    """In its mode `error` vLLM stops CuTeDSL and TileLang first; the engine is dead, and the log says why."""
    calls = [["use_cutedsl", [512]], ["use_tilelang", [16, 1024, 256]]]
    extra = {"extra": {"example": {"intermediate_sizes": [256], "gemm_shapes": [[512, 256]], "hidden_sizes": [256]}}}
    started = start_engine(
        calls,
        {**ARMED, "additional_config": {"jitwarm": extra}},
        JITWARM_PLUGINS="example",
        JITWARM_MONITOR="warn",
        **IN_ONE_PROCESS,
    )
    assert all(answer.startswith("raised: ") for [answer] in started.answer["calls"])
    cute, tile = started.all("unexpected_compile")
    assert (cute["backend"], cute["kernel"]) == ("cutedsl", "example:silu_and_mul")
    assert (tile["backend"], tile["why"]) == ("tilelang", "which kernel it belongs to cannot be seen")


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_both_monitors_see_every_compile_whichever_came_first(tmp_path, first):
    done = kits.python(
        SUPPORT / "two_monitors.py",
        first,
        PYTHONPATH=SUPPORT,
        TRITON_CACHE_DIR=tmp_path / "triton",
        TILELANG_CACHE_DIR=tmp_path / "tilelang",
        CUDA_VISIBLE_DEVICES="",
        HOME=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    saw = json.loads(done.stdout.splitlines()[-1])
    every = ["cutedsl", "tilelang", "triton"]
    assert {name: sorted(backends) for name, backends in saw.items()} == {
        "ours": every,
        "theirs": every,
        "theirs_alone": every,
    }
