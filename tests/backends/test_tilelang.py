"""The TileLang adapter, with real nvcc compiles for sm_90a in real processes."""

import pytest
from processes import errors, one_run, outcomes

from jitwarm import Target
from jitwarm.backends._tilelang import TileLangBackend

pytest.importorskip("tilelang")
LAZY, EAGER = "tilelang_kernels:LazyAdd", "tilelang_kernels:EagerAdd"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("tilelang") / "store"
    return root, one_run(root, LAZY, EAGER, COUNT="tilelang")


def test_each_key_is_a_real_library_for_the_asked_architecture(built):
    root, report = built
    assert outcomes(report) == ["compiled"] * 4
    # Two kernels that differ in nothing that nvcc sees share a binary, so nvcc runs are counted against binaries.
    assert report["counted"]["tilelang"] == len(list((root / "tilelang").rglob("kernel.cubin"))) >= 3
    libraries = list((root / "tilelang").rglob("executable.so"))
    assert len(libraries) == 4
    assert all(b"arch sm_90a" in library.read_bytes() for library in libraries)


@pytest.mark.parametrize("attempt", [1, 2])
def test_later_processes_load_everything_and_call_no_compiler(built, attempt):
    """Two attempts and two kernels of one factory: loading must not change the key of the next one (`out_idx=[-1]`)."""
    root, _ = built
    report = one_run(root, LAZY, EAGER, COUNT="tilelang")
    assert outcomes(report) == ["loaded"] * 4
    assert report["counted"]["tilelang"] == 0
    assert report["warm_here"] == [True] * 4


def test_nothing_but_the_disk_is_needed_to_load(built):
    """A serving image has no nvcc."""
    report = one_run(built[0], LAZY, CUDA_HOME="/nonexistent", PATH="/nonexistent")
    assert outcomes(report) == ["loaded"] * 2


def test_a_missing_nvcc_is_named_and_is_no_failure_of_the_kernel(tmp_path):
    report = one_run(tmp_path / "store", LAZY, CUDA_HOME="/nonexistent", PATH="/nonexistent")
    assert outcomes(report) == ["unresolved"] * 2
    assert "needs nvcc" in errors(report)[0]


def test_a_cut_library_is_a_miss_and_is_repaired(built, tmp_path):
    import shutil

    copy = tmp_path / "store"
    shutil.copytree(built[0], copy)
    for library in (copy / "tilelang").rglob("executable.so"):
        library.write_bytes(library.read_bytes()[:4096])
    assert outcomes(one_run(copy, LAZY)) == ["compiled"] * 2
    assert outcomes(one_run(copy, LAZY)) == ["loaded"] * 2


def test_nvcc_errors_are_shown_without_the_whole_source(tmp_path):
    report = one_run(tmp_path / "store", "tilelang_kernels:Broken")
    assert outcomes(report) == ["failed"] * 2
    assert errors(report)[0].startswith("nvcc:")
    assert "no_such_function" in errors(report)[0]
    assert "#include" not in errors(report)[0]


def test_a_bare_function_is_refused_with_what_to_do(tmp_path):
    report = one_run(tmp_path / "store", "tilelang_kernels:Undecorated")
    assert outcomes(report) == ["failed"] * 2
    assert "was not made by @tilelang.jit" in errors(report)[0]


def test_a_disabled_disk_cache_is_noticed(tmp_path):
    """Otherwise a bake would end green with an empty directory."""
    report = one_run(tmp_path / "store", LAZY, TILELANG_DISABLE_CACHE="1")
    assert outcomes(report) == ["failed"] * 2
    assert "kept no entry on disk" in errors(report)[0]


def test_the_target_is_spelled_as_a_process_on_that_gpu_would():
    from jitwarm.backends._tilelang import internals

    assert internals.target_dict(Target("cuda", "89")) == {"kind": "cuda", "arch": "sm_89"}
    assert internals.target_dict(Target("cuda", "90")) == {"kind": "cuda", "arch": "sm_90a"}
    assert internals.target_dict(Target("hip", "gfx942")) == {"kind": "hip", "mcpu": "gfx942"}


def test_hip_needs_hipcc(monkeypatch):
    monkeypatch.setenv("ROCM_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "hipcc" in TileLangBackend().missing_toolchain(Target("hip", "gfx942"))


def test_a_warmed_call_compiles_nothing_and_an_unwarmed_one_compiles_once(tmp_path, monkeypatch):
    import tilelang_kernels as kernels
    import torch

    from jitwarm.contract.backend import TargetScope

    monkeypatch.setenv("TILELANG_CACHE_DIR", str(tmp_path))
    backend, target, kernel = TileLangBackend(), Target("cuda", "90"), kernels.LazyAdd()
    with TargetScope(target), backend.pin(target):
        kernel.compile(kernel.CompileKey(256))
        with backend.count_compiles() as count:
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"device.type"):
                    kernel(torch.zeros(4, 256), n=256)
        assert count.n_compiled == 0
        with backend.count_compiles() as count:
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"device.type"):
                    kernel(torch.zeros(4, 128), n=128)
        assert count.n_compiled == 1
