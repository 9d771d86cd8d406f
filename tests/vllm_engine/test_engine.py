"""jitwarm in a real vLLM engine: real processes, real compilers, vLLM's own monitor."""

import pytest
from kits import install

pytestmark = pytest.mark.vllm

ORDER = ["registered", "config", "phase_start", "key_start", "key_end", "phase_end", "monitor_armed", "first_token"]
ARMED = {"worker_cls": "engine_worker.MonitoredCPUWorker"}
WARM = {
    "alpha:Scale": ["compiled"] * 2,
    "alpha:first_rank_only": ["compiled"],
    "beta:PerHead": ["compiled"],
    "beta:of_this_model": ["compiled"],
}


def in_order(events):
    """The first of each kind in `ORDER`, as they came; of ends the last."""
    names = [event["event"] for event in events if event.get("phase") != "plan"]
    places = {n: len(names) - 1 - names[::-1].index(n) if n.endswith("_end") else names.index(n) for n in set(names)}
    return sorted((name for name in ORDER if name in places), key=places.get)


def planned_keys(events):
    return [event for event in events if event["event"] == "key_planned"]


def test_every_kernel_is_warm_before_the_monitor_is_armed(start_engine):
    """All three DSLs; and vLLM's monitor, armed in error mode, lets warmed kernels pass and stops others."""
    calls = [
        ["use_triton", [128]], ["use_triton", [256]],
        ["use_cutedsl", [256]], ["use_cutedsl", [512]],
        ["use_tilelang", [16, 512, 256]], ["use_tilelang", [16, 1024, 256]],
    ]  # fmt: skip
    extra = {"extra": {"example": {"intermediate_sizes": [256], "gemm_shapes": [[512, 256]], "hidden_sizes": [256]}}}
    started = start_engine(
        calls, {**ARMED, "additional_config": {"jitwarm": extra}}, JITWARM_PLUGINS=None, JITWARM_VERBOSE="1"
    )

    assert len(started.answer["tokens"]) == 3
    [worker] = started.workers
    assert in_order(worker) == ORDER
    assert {k: v for k, v in started.outcomes().items() if not k.startswith("example:")} == {
        **WARM, "gamma:Fill": ["compiled"],
    }  # fmt: skip
    assert {kernel for kernel in started.outcomes() if kernel.startswith("example:")} == {
        "example:fused_add_rms_norm", "example:gemm", "example:silu_and_mul",
    }  # fmt: skip
    assert {event["outcome"] for event in worker if event["event"] == "key_end"} == {"compiled"}

    warmed, cold = [answers[0] for answers in started.answer["calls"][::2]], started.answer["calls"][1::2]
    assert warmed == ["passed"] * 3
    for [answer], dsl in zip(cold, ("Triton", "CuTeDSL", "TileLang"), strict=True):
        assert answer.startswith("raised:")
        assert dsl.lower() in answer.lower()
        assert "during inference" in answer

    assert sum(": compiled in " in line for line in started.lines) == len(
        planned_keys(worker)
    )  # verbose: a line per key
    [summary] = [line for line in started.lines if "keys warm" in line]
    n_keys = len(planned_keys(worker))
    assert f"{n_keys} of {n_keys} keys warm for cuda:90" in summary


def test_the_configuration_is_the_engines(start_engine, tmp_path):
    """What kernels are asked with is what the engine runs with; and it was registered before the configuration was made."""
    started = start_engine(VLLM_ENABLE_V1_MULTIPROCESSING="0")
    [config] = started.all("config")
    page = config["config"]["attention"][0]["block_size"]  # the engine chooses it
    assert page >= 1
    assert {**config["config"], "extra": {}} == {
        "dtype": "float32", "kv_cache_dtype": "auto", "max_num_batched_tokens": 128, "max_num_seqs": 4,
        "max_model_len": 128, "cudagraph_capture_sizes": [], "tp_rank": 0, "tp_size": 1, "pp_rank": 0, "pp_size": 1,
        "dp_rank": 0, "dp_size": 1, "ep_rank": 0, "ep_size": 1, "num_speculative_tokens": 0, "quantization": None,
        "model": str(tmp_path / "model"), "device_name": "",
        "attention": [{"n_heads": 4, "n_kv_heads": 2, "head_size": 64, "sliding_window": None, "logits_soft_cap": 0.0,
                       "backend": "CPU_ATTN", "kind": "decoder", "kv_cache_dtype": "auto", "block_size": page,
                       "sinks_dtype": "", "has_alibi": False, "shares_kv": False, "chunk_lookback": -1}],
        "moe": [], "has_layers": True, "extra": {},
    }  # fmt: skip
    [registered] = started.all("registered")
    assert registered["at_mono_ns"] < config["mono_ns"]
    [local] = started.all("local")
    assert local["kernel"] == "beta:of_this_model"


def test_moe_layers_are_in_the_configuration(start_engine):
    """One record for all layers of a shape; intermediate size and experts are those of this rank."""
    moe = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    }
    started = start_engine(architecture=moe, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    [config] = started.all("config")
    [layer] = config["config"]["moe"]
    assert layer.items() >= {
        "n_experts": 4, "n_local_experts": 4, "top_k": 2, "hidden_size": 256, "intermediate_size": 512,
        "quantization": None, "group_size": -1, "scheme": "", "activation_scale": "", "is_gated": True, "has_bias": False,
    }.items()  # fmt: skip
    assert not layer["experts"].startswith("Triton")  # the CPU build has experts of its own


def test_two_ranks_compile_each_key_once(start_engine):
    started = start_engine(
        llm={**ARMED, "tensor_parallel_size": 2},
        VLLM_CPU_OMP_THREADS_BIND="0|1",
        VLLM_CPU_NUM_OF_RESERVED_CPU="0",
    )
    assert len(started.answer["tokens"]) == 3
    first, second = started.workers
    assert [events[0]["rank"] for events in (first, second)] == [0, 1]
    assert in_order(first) == in_order(second) == ORDER
    for rank in (0, 1):
        outcomes = started.outcomes(rank)
        assert outcomes.pop("alpha:first_rank_only") == (["skipped"] if rank else ["compiled"])
        assert {outcome for of_kernel in outcomes.values() for outcome in of_kernel} <= {"compiled", "loaded"}
    compiled = [(event["kernel"], event["key"]) for event in started.all("compile")]
    assert len(compiled) == len(set(compiled)) == 5
    assert sum("keys warm" in line for line in started.lines) == 2  # the ranks' plans differ: one line for each
    assert "jitwarm (5 keys)" in started.log  # the first rank's progress bar,
    assert "jitwarm (4 keys)" not in started.log  # and no other


def test_faults_of_plugins_are_told_and_cost_only_themselves(start_engine, site):
    kernel = """
import os, time
from dataclasses import dataclass
from jitwarm import hookimpl

class Faulty:
    @dataclass(frozen=True)
    class CompileKey:
        n: int

    def dispatch(self, *, n):
        return self.CompileKey(n)

    def get_warmup_keys(self, config):
        return [self.CompileKey(1)]

    def compile(self, key):
        {compile}

@hookimpl
def jitwarm_kernels():
    {hook}
"""
    good_hook, good_compile = "return [Faulty()]", "pass"
    sources = {
        "raises_at_import": "raise RuntimeError('no luck today')",
        "raises_in_hook": kernel.format(hook="raise ValueError('no kernels')", compile=good_compile),
        "raises_in_compile": kernel.format(hook=good_hook, compile="raise ValueError('no such tile')"),
        "aborts_in_compile": kernel.format(hook=good_hook, compile="os.abort()"),
        "hangs_at_import": "import time; time.sleep(3600)",
        "hangs_in_hook": kernel.format(hook="time.sleep(3600)", compile=good_compile),
        "hangs_in_compile": kernel.format(hook=good_hook, compile="time.sleep(3600)"),
    }
    for name, source in sources.items():
        install(site, f"{name}_kernels", source, plugin=name)
    started = start_engine(
        JITWARM_PLUGINS=None, JITWARM_DISABLE="example", JITWARM_PLAN_TIMEOUT_S="4", JITWARM_KEY_TIMEOUT_S="25"
    )

    assert len(started.answer["tokens"]) == 3
    outcomes = started.outcomes()
    assert {kernel: outcomes[kernel] for kernel in WARM} == WARM
    assert outcomes["raises_in_compile:Faulty"] == outcomes["aborts_in_compile:Faulty"] == ["failed"]
    assert outcomes["hangs_in_compile:Faulty"] == ["timed_out"]
    told = "\n".join(started.lines)
    for name in sources:
        assert name in told
    assert "no luck today" in told
    assert "no such tile" in told
    assert "SIGABRT" in told
    assert "hangs_at_import_kernels.py:1" in told  # where it hangs


def test_strict_ends_the_start_with_the_list(start_engine, site):
    install(site, "bad_kernels", "raise RuntimeError('no luck today')", plugin="bad")
    started = start_engine(JITWARM_PLUGINS="alpha,bad", JITWARM_POLICY="strict", VLLM_ENABLE_V1_MULTIPROCESSING="0")
    assert "JITWARM_POLICY is strict" in started.answer["error"]
    assert "plugin bad" in started.answer["error"]
    assert "no luck today" in started.answer["error"]


def test_a_second_start_loads_what_the_first_has_built(start_engine):
    assert start_engine(VLLM_ENABLE_V1_MULTIPROCESSING="0").outcomes() == WARM
    settings = {"disable": ["beta"], "verbos": True, "key_timeout_s": "soon"}
    again = start_engine(
        llm={"additional_config": {"jitwarm": settings}}, VLLM_ENABLE_V1_MULTIPROCESSING="0", JITWARM_RUN_ID="again"
    )
    [events] = [events for events in again.workers if events[0]["run"] == "again"]
    ended = {(event["kernel"], event["outcome"]) for event in events if event["event"] == "key_end"}
    assert ended == {("alpha:Scale", "loaded"), ("alpha:first_rank_only", "loaded")}
    told = "\n".join(again.lines)
    assert "'verbos'" in told
    assert "did you mean 'verbose'" in told
    assert "key_timeout_s" in told


def test_a_budget_ends_the_warmup_and_not_the_start(start_engine):
    started = start_engine(VLLM_ENABLE_V1_MULTIPROCESSING="0", JITWARM_TIME_BUDGET_S="0")
    assert len(started.answer["tokens"]) == 3
    assert {outcome for outcomes in started.outcomes().values() for outcome in outcomes} == {"skipped"}
    assert "time budget" in "\n".join(started.lines)


def test_strict_also_ends_the_start_where_there_was_no_warmup(start_engine):
    started = start_engine(JITWARM_POLICY="strict", JITWARM_TARGET=None, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    assert "no target" in started.answer["error"]


def test_forked_workers_are_warmed_as_well(start_engine):
    """Under `fork` vLLM loads plugins in the parent only."""
    started = start_engine(llm=ARMED, fork=True)
    assert len(started.answer["tokens"]) == 3
    [worker] = started.workers
    assert started.outcomes() == WARM
    [registered] = started.all("registered")
    assert in_order(worker) == ORDER
    assert registered["at_pid"] != registered["pid"]


def test_a_serving_worker_can_be_warmed_again(start_engine):
    """Elastic scale-up calls the worker's own method once more, with the monitor armed: nothing is compiled, nothing raises."""
    calls = [["compile_or_warm_up_model", []], ["use_triton", [256]]]
    started = start_engine(calls, ARMED, VLLM_ENABLE_V1_MULTIPROCESSING="0", JITWARM_PLUGINS="alpha,beta,gamma")
    [events] = started.workers
    starts = [n for n, event in enumerate(events) if event["event"] == "registered"]
    assert len(starts) == 2
    again = {(e["kernel"], e["outcome"]) for e in events[starts[1] :] if e["event"] == "key_end"}
    assert again == {
        ("alpha:Scale", "already_warm"), ("alpha:first_rank_only", "already_warm"), ("gamma:Fill", "loaded"),
        ("beta:PerHead", "already_warm"), ("beta:of_this_model", "already_warm"),
    }  # fmt: skip
    assert started.answer["calls"][1][0].startswith("raised:")  # the monitor is in error mode again
