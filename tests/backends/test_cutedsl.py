"""The CuTeDSL adapter and its disk cache, with real compiles for sm_90a in real processes."""

import json

import pytest
from processes import errors, one_run, outcomes

from jitwarm import Target
from jitwarm.backends._cutedsl import internals
from jitwarm.errors import CompileError, InvalidKernelError

pytest.importorskip("cutlass")
SCALE, LIBRARY = "cute_kernels:Scale", "cute_kernels:LibraryLike"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store in which two keys of an adapter's kernel and one of a library's own were built."""
    root = tmp_path_factory.mktemp("cute") / "store"
    return root, one_run(root, SCALE, LIBRARY, COUNT="cute")


def test_each_key_is_a_real_object_for_the_asked_architecture(built):
    root, report = built
    assert outcomes(report) == ["compiled"] * 3
    assert report["counted"]["cute"] == 4  # two keys of one compile each, one key of two
    objects = sorted((root / "objects").rglob("*.o"))
    assert len(objects) == 4
    for file in objects:
        assert list(internals._cubins(file.read_bytes())) == [(90, True)]


def test_a_second_process_loads_everything_and_compiles_nothing(built):
    root, _ = built
    report = one_run(root, SCALE, LIBRARY, COUNT="cute")
    assert outcomes(report) == ["loaded"] * 3
    assert report["counted"]["cute"] == 0
    assert report["n_compiles"] == 0
    assert report["warm_here"] == [True, True]


def damaged_copy(root, tmp_path, damage):
    import shutil

    copy = tmp_path / "store"
    shutil.copytree(root, copy)
    for directory in (copy / "objects").iterdir():
        damage(directory)
    return copy


DAMAGES = {
    "cut": lambda d: (d / "0.o").write_bytes((d / "0.o").read_bytes()[:500]),
    "empty": lambda d: (d / "0.o").write_bytes(b""),
    "gone": lambda d: (d / "0.o").unlink(),
    "no index": lambda d: (d / "index.json").unlink(),
    "index of another function": lambda d: (d / "index.json").write_text(
        json.dumps([{**entry, "name": "another"} for entry in json.loads((d / "index.json").read_text())])
    ),
}


EACH_DAMAGE = [pytest.param(name, marks=() if name in ("cut", "no index") else pytest.mark.soak) for name in DAMAGES]


@pytest.mark.parametrize("damage", EACH_DAMAGE)
def test_a_damaged_object_is_a_miss_and_is_repaired(built, tmp_path, damage):
    copy = damaged_copy(built[0], tmp_path, DAMAGES[damage])
    report = one_run(copy, SCALE, COUNT="cute")
    assert outcomes(report) == ["compiled"] * 2
    assert outcomes(one_run(copy, SCALE)) == ["loaded"] * 2


@pytest.mark.parametrize("damage", EACH_DAMAGE)
def test_an_object_that_no_manifest_vouches_for_is_still_checked(built, tmp_path, damage):
    """Without a checksum the loader itself must notice: it must never hand out something else than was asked for."""
    import shutil

    copy = damaged_copy(built[0], tmp_path, DAMAGES[damage])
    shutil.rmtree(copy / "manifest")
    assert outcomes(one_run(copy, SCALE)) == ["compiled"] * 2


def test_a_key_of_two_objects_of_which_one_is_damaged_is_repaired_whole(built, tmp_path):
    import shutil

    copy = damaged_copy(built[0], tmp_path, lambda d: (d / "1.o").exists() and (d / "1.o").write_bytes(b""))
    shutil.rmtree(copy / "manifest")
    assert one_run(copy, LIBRARY, COUNT="cute")["counted"]["cute"] == 1
    assert outcomes(one_run(copy, LIBRARY)) == ["loaded"]


def test_amd_is_unresolved_with_its_reason(tmp_path):
    report = one_run(tmp_path / "store", SCALE, TARGET="hip:gfx942")
    assert outcomes(report) == ["unresolved"] * 2
    assert errors(report) == ["target not supported: CuTeDSL has no HIP target"] * 2


def test_an_architecture_that_the_compiler_does_not_know_is_one_clear_sentence(tmp_path):
    report = one_run(tmp_path / "store", SCALE, TARGET="cuda:99")
    assert outcomes(report) == ["failed"] * 2
    assert "does not know sm_99a" in errors(report)[0]


def test_objects_that_need_a_pickle_are_compiled_in_each_process(tmp_path):
    import cute_kernels as kernels

    from jitwarm.backends._cutedsl import CuteBackend
    from jitwarm.contract.backend import TargetScope

    backend, target, key = CuteBackend(), Target("cuda", "90"), kernels.LibraryLike.CompileKey(32, plain=True)
    for _ in range(2):
        with (
            TargetScope(target),
            backend.pin(target),
            backend.count_compiles() as count,
            backend.exchange(tmp_path / "o", target),
        ):
            kernels.LibraryLike().compile(key)
        assert count.n_compiled == 2
    assert not (tmp_path / "o").exists()


@pytest.fixture
def backend_and_kernels():
    import cute_kernels as kernels

    from jitwarm.backends._cutedsl import CuteBackend

    return CuteBackend(), kernels


def test_a_call_finds_the_warmed_object_and_the_launch_asks_for_a_gpu(backend_and_kernels, tmp_path):
    import torch

    from jitwarm.contract.backend import TargetScope

    backend, kernels = backend_and_kernels
    kernel, target = kernels.Scale(), Target("cuda", "90")
    with TargetScope(target), backend.pin(target):
        kernel.compile(kernel.CompileKey(threads=32))
    with backend.count_compiles() as count, pytest.raises(Exception, match="device_type=cuda"):
        kernel(torch.zeros(4), 2.0, threads=32)
    assert count.n_compiled == 0


def test_an_unwarmed_call_without_gpu_says_so_instead_of_building_for_a_default(backend_and_kernels):
    from jitwarm.errors import NoDeviceError

    _, kernels = backend_and_kernels
    with pytest.raises(NoDeviceError, match="not warm"):
        kernels.Scale()(None, 2.0, threads=32)


@pytest.mark.parametrize("keywords", [{}, {"factor": 3.0}])
def test_a_loaded_object_takes_keywords_and_defaults_as_the_compiled_one_does(backend_and_kernels, tmp_path, keywords):
    import cutlass
    import torch
    from cutlass import Float32, cute
    from cutlass.cute.runtime import make_fake_compact_tensor, make_fake_stream

    backend, kernels = backend_and_kernels
    target = Target("cuda", "90")
    answers = []
    for _ in range(2):
        with backend.pin(target), backend.exchange(tmp_path / "o", target):
            x = make_fake_compact_tensor(cutlass.Float32, (cute.sym_int(),), stride_order=(0,), assumed_align=16)
            stream = make_fake_stream(use_tvm_ffi_env_stream=True)
            function = cute.compile(
                kernels.scale_by_default, x, Float32(2.0), stream=stream, threads=32, options="--enable-tvm-ffi"
            )
        with pytest.raises(Exception) as caught:
            function(torch.zeros(4), **keywords)
        answers.append(str(caught.value).splitlines()[0])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "change", [{"dtype": "bfloat16"}, {"aligned": False}, {"strided": True}, {"divisible_by": 8}, {"threads": 128}]
)
def test_what_a_descriptor_says_reaches_the_compiler(backend_and_kernels, tmp_path, change):
    from jitwarm.contract.backend import TargetScope

    backend, kernels = backend_and_kernels
    kernel, target = kernels.Scale(), Target("cuda", "90")
    made = []
    for number, key in enumerate((kernel.CompileKey(), kernel.CompileKey(**change))):
        with TargetScope(target), backend.pin(target), backend.exchange(tmp_path / str(number), target):
            kernel.compile(key)
        made.append((tmp_path / str(number) / "0.o").read_bytes())
    assert made[0] != made[1]


def test_an_object_for_another_architecture_is_never_published(backend_and_kernels, tmp_path):
    from jitwarm.contract.backend import TargetScope

    backend, kernels = backend_and_kernels
    asked, built = Target("cuda", "90"), Target("cuda", "100")
    with (
        pytest.raises(CompileError, match=r"asked for sm_90a, but the compiler made sm_100a"),
        TargetScope(asked),
        backend.pin(built),
        backend.exchange(tmp_path / "o", asked),
    ):
        kernels.Scale().compile(kernels.Scale.CompileKey())
    assert not (tmp_path / "o").exists()


def test_a_dtype_that_cutedsl_lacks_is_named(backend_and_kernels):
    from jitwarm.contract.backend import TargetScope

    _, kernels = backend_and_kernels
    with pytest.raises(InvalidKernelError, match="float8_e4m3fnuz"), TargetScope(Target("cuda", "90")):
        kernels.Scale().compile(kernels.Scale.CompileKey(dtype="float8_e4m3fnuz"))


def test_messages_carry_no_terminal_colours(backend_and_kernels):
    backend, _ = backend_and_kernels
    assert backend.explain(ValueError("\x1b[91mred\x1b[0m")) == "ValueError: red"
