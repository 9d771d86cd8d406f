"""The Triton adapter, with real compiles for cuda:90. Also run with every other supported Triton version."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

pytest.importorskip("triton")
import triton_kernels as kernels
from triton import knobs

from jitwarm import IntClass, Outcome, Skipped, Target, TensorSpec, TritonKernel, Unresolved, encode_key
from jitwarm.backends._triton import wrappers
from jitwarm.backends._triton.kernel import TunedKey
from jitwarm.contract.keys import decode_key
from jitwarm.errors import CompileError, InvalidKernelError, NoDeviceError, UnsupportedTargetError

pytestmark = pytest.mark.triton


class Tensor:
    """Stands for a CUDA tensor, of which there is none here: Triton reads a dtype and an address."""

    def __init__(self, dtype, address=0):
        self.dtype, self.address = dtype, address

    def data_ptr(self):
        return self.address


def launch(function, *args, **kwargs):
    """What a launch does, up to the launch itself: the same binder, the same caches, a compile on a miss."""
    return function.warmup(*args, grid=(1,), **kwargs)


def test_a_warmed_key_is_a_real_cubin_and_is_not_compiled_again(triton_on_sm90, tmp_path):
    kernel, key = kernels.Scale(), kernels.Scale.CompileKey()
    assert not kernel.is_warm(key)
    with triton_on_sm90.count_compiles() as first:
        kernel.compile(key)
    assert first.n_compiled == 1
    assert kernel.is_warm(key)
    cubin = next(path for path in first.files if path.suffix == ".cubin")
    assert cubin.read_bytes().startswith(b"\x7fELF")
    assert ".target sm_90a" in next(p for p in first.files if p.suffix == ".ptx").read_text()
    with triton_on_sm90.count_compiles() as second:
        kernel.compile(key)
    assert second.n_compiled == 0


class OptionsOfTheKey(kernels.Scale):
    """As where a file of tuned configurations says which options a launch has, and in which order."""

    def launch_options(self, key):
        return {"num_stages": 2, "num_warps": key.num_warps} if key.num_warps > 4 else {}


def test_the_key_may_say_which_options_a_launch_has(triton_on_sm90):
    kernel, key = OptionsOfTheKey(), kernels.Scale.CompileKey()
    kernel.compile(key)
    kernel.compile(replace(key, num_warps=8))
    tensor = Tensor("fp32")
    with triton_on_sm90.count_compiles() as launched:
        launch(kernels.scale, tensor, tensor, 16, 2.0, BLOCK=64)
        launch(kernels.scale, tensor, tensor, 16, 2.0, BLOCK=64, num_stages=2, num_warps=8)
    assert launched.n_compiled == 0


def test_a_disk_hit_is_no_compile_and_names_its_files(triton_on_sm90):
    kernel, key = kernels.Scale(), kernels.Scale.CompileKey()
    with triton_on_sm90.count_compiles() as first:
        kernel.compile(key)
    kernels.scale.device_caches.clear()  # as in a new process
    assert not kernel.is_warm(key)
    with triton_on_sm90.count_compiles() as second:
        kernel.compile(key)
    assert second.n_compiled == 0
    assert set(second.files) == set(first.files)


K = kernels.Scale.CompileKey
LAUNCHES = [
    (K(), Tensor("fp32"), 32, {}),
    (K(n=IntClass.ONE), Tensor("fp32"), 1, {}),
    (K(n=IntClass.OTHER), Tensor("fp32"), 33, {}),
    (K(n=IntClass.MULTIPLE_OF_16_I64), Tensor("fp32"), 2**40, {}),
    (K(n=IntClass.OTHER_I64), Tensor("fp32"), 2**40 + 3, {}),
    (K(dtype="bfloat16"), Tensor("bf16"), 0, {}),
    (K(aligned=False), Tensor("fp32", 8), 32, {}),
    (K(block=128), Tensor("fp32"), 32, {"BLOCK": 128}),
    (K(num_warps=8), Tensor("fp32"), 32, {"num_warps": 8}),
    (K(num_stages=2), Tensor("fp32"), 32, {"num_stages": 2}),
]


@pytest.mark.parametrize(
    ("key", "x", "n", "given"), LAUNCHES, ids=lambda v: v.__class__.__name__ if not isinstance(v, int) else str(v)
)
def test_a_launch_finds_exactly_the_key_that_was_warmed_for_it(triton_on_sm90, key, x, n, given):
    out = Tensor(x.dtype)
    arguments = {"BLOCK": 64, "num_warps": 4, "num_stages": 3, **given}
    kernels.Scale().compile(key)
    with triton_on_sm90.count_compiles() as count:
        launch(kernels.scale, x, out, n, 3.5, **arguments)
    assert count.n_compiled == 0, "the launch compiled, although its key was warm"
    assert not count.files, "the launch went to disk: its in-process entry was missing"


def test_every_key_of_the_launch_table_is_another_specialization(triton_on_sm90):
    texts = {kernels.Scale().in_process_key(key) for key, *_ in LAUNCHES}
    assert len(texts) == len(LAUNCHES)


def test_an_unwarmed_call_compiles_once_and_then_says_that_there_is_no_gpu(triton_on_sm90):
    kernel = kernels.Scale()
    with triton_on_sm90.count_compiles() as count:
        for _ in range(2):
            with pytest.raises(NoDeviceError, match="no GPU"):
                kernel.launch(kernel.CompileKey(), Tensor("fp32"), Tensor("fp32"), 32, 1.0, grid=(1,))
    assert count.n_compiled == 1


def test_a_warmed_call_compiles_nothing(triton_on_sm90):
    kernel = kernels.Scale()
    kernel.compile(kernel.dispatch(n=48))
    with triton_on_sm90.count_compiles() as count, pytest.raises(NoDeviceError):
        kernel(Tensor("fp32"), Tensor("fp32"), 32, 1.0, grid=(1,), n=32)
    assert count.n_compiled == 0
    assert not count.files


def test_one_true_and_one_point_zero_are_compiled_apart(triton_on_sm90):
    kernel = kernels.Flagged()
    with triton_on_sm90.count_compiles() as count:
        for key in kernel.get_warmup_keys(None):
            kernel.compile(key)
    assert count.n_compiled == 3


# --- what a key must decide --------------------------------------------------------------------------------------------


def declare(fields, **members):
    """Define a kernel class over `scale` with the given key fields, as an author would."""
    key_type = dataclass(frozen=True)(type("CompileKey", (), {"__annotations__": fields}))
    return type("Declared", (TritonKernel,), {"kernel": kernels.scale, "CompileKey": key_type, **members})


def test_a_missing_constexpr_field_is_named_where_the_class_is_defined():
    with pytest.raises(InvalidKernelError, match=r"misses a field for 'BLOCK', a constexpr") as caught:
        declare({"dtype": str})
    assert "fixed = {'BLOCK': value}" in caught.value.hint
    assert "triton_kernels.py" in caught.value.where


def test_a_missing_option_field_is_named():
    with pytest.raises(InvalidKernelError, match=r"'num_warps', a compile option"):
        declare({"dtype": str, "block": int}, options=("num_warps",))


def test_a_missing_dtype_is_named():
    with pytest.raises(InvalidKernelError, match=r"'x_ptr', a pointer"):
        declare({"block": int})


@pytest.mark.parametrize("how", [{"fixed": {"BLOCK": 64}}, {"derived": {"BLOCK": ("dtype",)}}])
def test_fixed_and_derived_parameters_need_no_field(how):
    declare({"dtype": str}, **how)


def test_fixed_must_name_a_parameter():
    with pytest.raises(InvalidKernelError, match="BLOK"):
        declare({"dtype": str, "block": int}, fixed={"BLOK": 64})


def test_derived_must_name_a_field():
    with pytest.raises(InvalidKernelError, match="hidden"):
        declare({"dtype": str}, derived={"BLOCK": ("hidden",)})


def entries_of(key, **changes):
    return {**kernels.Scale().launch_args(key), **changes}


def test_an_integer_that_no_field_decides_is_named(triton_on_sm90):
    cls = declare({"dtype": str, "block": int}, launch_args=lambda _, key: entries_of(K(), BLOCK=key.block))
    with pytest.raises(InvalidKernelError, match=r"'n', an integer"):
        declared(cls).check_keys([cls.CompileKey("float32", 64)])


def test_a_parameter_without_entry_is_named(triton_on_sm90):
    def launch_args(_, key):
        return {name: entry for name, entry in entries_of(K()).items() if name != "factor"}

    cls = declare({"dtype": str, "block": int, "n": int}, launch_args=launch_args)
    with pytest.raises(InvalidKernelError, match=r"no entry for parameter 'factor'"):
        declared(cls).check_keys([cls.CompileKey("float32", 64, 16)])


def test_an_entry_for_no_parameter_is_named(triton_on_sm90):
    cls = declare({"dtype": str, "block": int, "n": int}, launch_args=lambda _, key: entries_of(K(), nn=3))
    with pytest.raises(InvalidKernelError, match=r"gives nn"):
        declared(cls).check_keys([cls.CompileKey("float32", 64, 16)])


def declared(cls):
    cls.dispatch = cls.get_warmup_keys = lambda *_: None
    cls.__abstractmethods__ = frozenset()
    return cls()


def test_two_keys_that_triton_cannot_tell_apart_are_noted(triton_on_sm90):
    key_type = dataclass(frozen=True)(
        type("CompileKey", (), {"__annotations__": {"dtype": str, "block": int, "n": int}})
    )
    cls = type("Fine", (TritonKernel,), {
        "kernel": kernels.scale, "CompileKey": key_type,
        "launch_args": lambda _, key: entries_of(K(), n=key.n, BLOCK=key.block),
    })  # fmt: skip
    notes = declared(cls).check_keys(
        [key_type("float32", 64, 32), key_type("float32", 64, 48), key_type("float32", 64, 33)]
    )
    assert len(notes) == 1
    assert "2 keys are one specialization" in notes[0]
    assert "n=32" in notes[0]
    assert "n=48" in notes[0]


# --- autotuned and heuristic-wrapped kernels ---------------------------------------------------------------------------


def test_an_autotuned_key_becomes_one_key_per_configuration_and_one_choice(triton_on_sm90):
    kernel = kernels.TunedRowsSum()
    keys = kernel.expand_keys(kernel.get_warmup_keys(None))
    assert [dict(key.config.arguments)["BLOCK"] for key in keys if key.config] == [64, 128, 4096]  # 8192 was pruned
    assert [key for key in keys if key.config is None] == [TunedKey(kernel.CompileKey("float32", 4096), None)]
    assert [encode_key(decode_key(kernel, encode_key(key))) for key in keys] == [encode_key(key) for key in keys]


def test_each_configuration_is_compiled_and_a_bad_one_is_skipped_like_the_tuner_does(triton_on_sm90):
    kernel = kernels.TunedRowsSum()
    *configs, bad, choice = kernel.expand_keys(kernel.get_warmup_keys(None))
    kernels.PRE_HOOKED.clear()
    with triton_on_sm90.count_compiles() as count:
        for key in configs:
            kernel.compile(key)
    assert count.n_compiled == 2
    assert len(kernels.PRE_HOOKED) >= 1
    with pytest.raises(Skipped, match="cannot compile"):
        kernel.compile(bad)
    with pytest.raises(Unresolved, match="tuning needs a device"):
        kernel.compile(choice)


def test_a_pinned_configuration_answers_the_choice(triton_on_sm90, monkeypatch):
    kernel = kernels.TunedRowsSum()
    choice = kernel.expand_keys(kernel.get_warmup_keys(None))[-1]
    dtypes = ("torch.float32", "torch.float32") if "torch" in __import__("sys").modules else ("float32", "float32")
    monkeypatch.setitem(kernels.tuned_rows_sum.cache, (4096, *dtypes), kernels.tuned_rows_sum.configs[1])
    assert kernel.compile(choice) is Outcome.ALREADY_WARM


@pytest.fixture
def triton_tunes(triton_on_sm90, monkeypatch):
    """Have Triton tune, and keep its results on disk; a stand-in clock finds the second configuration the fastest."""
    tuner = next(layer for layer in wrappers.layers(kernels.heuristics_over_tuned) if hasattr(layer, "prune_configs"))
    monkeypatch.setattr(tuner, "cache_results", True)
    monkeypatch.setattr(tuner, "cache", {})
    timed = []

    def stand_in_clock(call, quantiles):
        call()
        timed.append(call)
        return [1.0 / len(timed)] * 3

    monkeypatch.setitem(vars(tuner), "do_bench", stand_in_clock)

    def tune(n):
        tensors = [wrappers.Pointer(TensorSpec("float32", ("n",))) for _ in range(2)]
        tuner.run(*tensors, n, SHARED=True, grid=(1,), warmup=True)
        return tuner.cache.popitem()[1], len(timed)

    return tune


def test_a_result_of_triton_on_disk_answers_the_choice_and_nothing_is_timed(triton_tunes):
    kernel = kernels.HeuristicsOverTuned()
    choice = kernel.expand_keys(kernel.get_warmup_keys(None))[-1]
    with pytest.raises(Unresolved, match="tuning needs a device"):
        kernel.compile(choice)
    fastest, n_timed = triton_tunes(4096)
    assert (fastest.kwargs, n_timed) == ({"BLOCK": 128}, 2)

    assert kernel.compile(choice) is Outcome.LOADED
    assert kernel.compile(choice) is Outcome.ALREADY_WARM
    assert triton_tunes(4096) == (fastest, 2)

    other = TunedKey(kernel.CompileKey("float32", 8192), None)
    with pytest.raises(Unresolved, match="tuning needs a device"):
        kernel.compile(other)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"configs_timings": [[{"no": 1}, [1.0]]]}'])
def test_a_damaged_result_of_triton_is_no_answer(triton_tunes, content):
    kernel = kernels.HeuristicsOverTuned()
    choice = kernel.expand_keys(kernel.get_warmup_keys(None))[-1]
    triton_tunes(4096)
    [file] = Path(os.environ["TRITON_CACHE_DIR"]).glob("*/*.autotune.json")
    file.write_text(content)
    with pytest.raises(Unresolved, match="tuning needs a device"):
        kernel.compile(choice)


@pytest.mark.parametrize("kernel_type", [kernels.TunedRowsSum, kernels.HeuristicsOverTuned])
def test_a_tuned_launch_finds_the_configuration_that_was_warmed(triton_on_sm90, kernel_type):
    kernel = kernel_type()
    key = kernel.expand_keys(kernel.get_warmup_keys(None))[1]
    kernel.compile(key)
    shared = kernel._resolve(key).arguments["SHARED"]
    with triton_on_sm90.count_compiles() as count:
        # The autotuner's own order of keywords once it has chosen this configuration.
        launch(kernels.rows_sum, Tensor("fp32"), Tensor("fp32"), 4096, SHARED=shared, BLOCK=128, num_warps=2, num_ctas=1,
               num_stages=3)  # fmt: skip
    assert (count.n_compiled, len(count.files)) == (0, 0)


def test_a_heuristic_that_reads_a_value_given_as_a_class_is_refused(triton_on_sm90):
    kernel = kernels.ClassOnly()
    with pytest.raises(InvalidKernelError, match=r"reads 'n', which launch_args gives only as"):
        kernel.expand_keys(kernel.get_warmup_keys(None))


# --- what could not be launched, hooks, targets ------------------------------------------------------------------------


def test_a_kernel_that_needs_more_shared_memory_than_there_is_fails_now_and_not_at_its_launch(triton_on_sm90):
    with pytest.raises(CompileError, match=r"bytes of shared memory; cuda:90 has 232,448"):
        kernels.Matmul().compile(kernels.Matmul.CompileKey("float16", 256, 128, 4, 8))


def test_more_warps_than_a_block_can_have_fail(triton_on_sm90):
    with pytest.raises(CompileError, match="2048 threads"):
        kernels.Scale().compile(replace(K(), num_warps=64, block=2048))


def test_a_listener_that_was_there_before_still_hears_every_compile(triton_on_sm90, monkeypatch):
    heard = []
    monkeypatch.setattr(knobs.compilation, "listener", lambda **event: heard.append(event["cache_hit"]))
    with triton_on_sm90.count_compiles():
        kernels.Scale().compile(K())
    assert heard == [False]
    assert knobs.compilation.listener is not None


def test_a_second_target_in_one_process_is_refused(triton_on_sm90):
    with (
        pytest.raises(UnsupportedTargetError, match="already compiles Triton kernels for cuda:90"),
        triton_on_sm90.pin(Target("cuda", "100")),
    ):
        pass


def test_a_moved_cache_is_mended(triton_on_sm90, tmp_path, monkeypatch):
    kernels.Scale().compile(K())
    (tmp_path / "triton").rename(tmp_path / "elsewhere")
    (tmp_path / "new").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "new" / "triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new" / "triton"))
    triton_on_sm90.relocate(tmp_path / "new")
    kernels.scale.device_caches.clear()
    with triton_on_sm90.count_compiles() as count:
        kernels.Scale().compile(K())
    assert count.n_compiled == 0
    group = next((tmp_path / "new").rglob("__grp__*.json"))
    assert all(str(tmp_path / "new") in place for place in json.loads(group.read_text())["child_paths"].values())


def test_a_stages_hook_is_part_of_the_key_where_triton_makes_it_one(triton_on_sm90, monkeypatch):
    def hook(*given):
        return ("a key", "a hash") if not given else None

    monkeypatch.setattr(knobs.runtime, "add_stages_inspection_hook", hook)
    kernels.Scale().compile(K())
    assert kernels.Scale().is_warm(K())
