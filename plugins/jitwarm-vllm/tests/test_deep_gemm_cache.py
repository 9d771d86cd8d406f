"""What is kept of DeepGEMM's entries, and the processes that ask it, when something goes wrong."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from processes import wait_until

from jitwarm import JitwarmError, Outcome, Target, Unresolved
from jitwarm.contract.backend import ArtifactScope, TargetScope
from jitwarm_vllm import deep_gemm, deep_gemm_lists, described_device
from jitwarm_vllm.deep_gemm_layers import Gemm
from jitwarm_vllm.deep_gemm_process import DeepGemmProcess

HOPPER = Target.parse("cuda:90")
GEMM = Gemm("linear", 512, 512, 1, 1, is_first=False, tokens=(1, 40))
ENTRY = "sm90_fp8_gemm_1d2d.00"
KEY = deep_gemm.DeepGemm.CompileKey(
    "linear", 512, 512, 1, 1, is_first=False, n_multiprocessors=132, tokens=1, entries=(ENTRY,)
)
FILES = {"kernel.cu": "source", "kernel.cubin": "code", "meta.json": "{}", ".committed": ""}


# --- entries -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DG_JIT_CACHE_DIR", f"{tmp_path / 'first'}:{tmp_path / 'to read'}")
    return tmp_path / "first" / "cache"


def write(entry, files=FILES):
    entry.mkdir(parents=True)
    for name, content in files.items():
        (entry / name).write_text(content)


def read(entry):
    return {file.name: file.read_text() for file in entry.iterdir()}


def compiled(tmp_path):
    """One call of `compile`, with no compiler: what is neither kept nor in DeepGEMM's cache cannot be had."""
    with TargetScope(HOPPER), ArtifactScope(tmp_path / "kept"):
        return deep_gemm.kernels()[0].compile(KEY)


def test_what_deepgemm_has_built_before_is_kept(cache, tmp_path):
    write(cache / ENTRY)
    assert compiled(tmp_path) is Outcome.LOADED
    assert all(file.is_file() for file in (tmp_path / "kept").iterdir())  # the store keeps files, and no directories
    for file in (cache / ENTRY).iterdir():
        file.unlink()
    (cache / ENTRY).rmdir()
    assert compiled(tmp_path) is Outcome.LOADED
    assert read(cache / ENTRY) == FILES


@pytest.mark.parametrize(
    "damaged",
    [{**FILES, "kernel.cubin": "co"}, {"kernel.cu": "source", ".committed": ""}, {}],
    ids=["cut off", "a file is missing", "empty"],
)
def test_an_entry_that_deepgemm_would_die_of_is_put_right(cache, tmp_path, damaged):
    write(cache / ENTRY)
    compiled(tmp_path)
    for file in (cache / ENTRY).iterdir():
        file.unlink()
    (cache / ENTRY).rmdir()
    write(cache / ENTRY, damaged)
    assert compiled(tmp_path) is Outcome.LOADED
    assert read(cache / ENTRY) == FILES


def test_what_is_right_is_left_alone(cache, tmp_path):
    write(cache / ENTRY)
    compiled(tmp_path)
    noted = {**FILES, "meta.json": "another process's note of its compile"}
    (cache / ENTRY / "meta.json").write_text(noted["meta.json"])
    compiled(tmp_path)
    assert read(cache / ENTRY) == noted


# --- processes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(library, monkeypatch):
    """A file with a line for each process that was started to ask: each compiles the description of its device."""
    nvcc, file = library.parent / "nvcc", library.parent / "asked"
    nvcc.write_text(
        f'#!/bin/sh\ncase "$*" in *described_device.c*) echo >>{file};; esac\nexec {described_device.find_nvcc()} "$@"\n'
    )
    nvcc.chmod(0o755)
    monkeypatch.setenv("DG_JIT_NVCC_COMPILER", str(nvcc))
    monkeypatch.setenv("TMPDIR", str(library.parent))
    file.touch()
    return file


LIST = f"""
import sys
from pathlib import Path
from jitwarm import Target
from jitwarm_vllm import deep_gemm_lists
from jitwarm_vllm.deep_gemm_layers import Gemm
print(deep_gemm_lists.listed(Target.parse("cuda:90"), 132, Path(sys.argv[1]), [{GEMM!r}]))
"""


def test_of_many_processes_at_once_one_asks(asked, tmp_path):
    listing = [
        subprocess.Popen([sys.executable, "-c", LIST, tmp_path / "cache"], stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(4)
    ]
    answers = {process.communicate(timeout=120)[0] for process in listing}
    assert len(answers) == 1
    assert "sm90_fp8_gemm_1d2d." in answers.pop()
    assert len(asked.read_text().splitlines()) == 1
    assert not list(tmp_path.glob("jitwarm-deep-gemm-*"))


def test_several_layers_are_asked_for_at_once_and_each_answer_is_its_own(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6))
    layers = [replace(GEMM, n=n, tokens=(1, 2)) for n in (256, 512, 768, 1024)]
    answers = deep_gemm_lists.listed(HOPPER, 132, tmp_path / "cache", layers)
    assert len(asked.read_text().splitlines()) == 3
    assert answers == [deep_gemm_lists.listed(HOPPER, 132, tmp_path / "cache", [layer])[0] for layer in layers]
    assert len({entries for [(_, entries)] in answers}) == len(layers)
    assert len(asked.read_text().splitlines()) == 3


def test_an_answer_that_cannot_be_read_is_asked_for_again(asked, tmp_path):
    first = deep_gemm_lists.listed(HOPPER, 132, tmp_path / "cache", [GEMM])
    [file] = (tmp_path / "cache" / "jitwarm").glob("*.json")
    file.write_text(file.read_text()[:-5])
    assert deep_gemm_lists.listed(HOPPER, 132, tmp_path / "cache", [GEMM]) == first
    assert len(asked.read_text().splitlines()) == 2


@pytest.mark.usefixtures("asked")
def test_where_answers_cannot_be_kept_they_are_given_all_the_same(tmp_path):
    (tmp_path / "cache").write_text("no directory")
    [reached] = deep_gemm_lists.listed(HOPPER, 132, tmp_path / "cache", [GEMM])
    assert [tokens for tokens, _ in reached] == [1, 17, 33]


@pytest.mark.usefixtures("asked")
def test_a_process_that_was_killed_is_named_and_leaves_nothing(tmp_path):
    with closing(DeepGemmProcess(HOPPER, 132, compiles=False)) as process:
        process._process.kill()  # noqa: SLF001 - as an out-of-memory killer does
        with pytest.raises(JitwarmError, match="has ended"):
            process.reached(GEMM)
        assert not process.is_alive()
    assert not list(tmp_path.glob("jitwarm-deep-gemm-*"))


@pytest.mark.usefixtures("asked")
def test_a_process_that_does_not_answer_is_ended(tmp_path, monkeypatch):
    with closing(DeepGemmProcess(HOPPER, 132, compiles=False)) as process:
        os.kill(process._process.pid, signal.SIGSTOP)  # noqa: SLF001
        monkeypatch.setattr("jitwarm_vllm.deep_gemm_process._LISTING_TIMEOUT_S", 0.5)
        with pytest.raises(JitwarmError, match="has ended"):
            process.reached(GEMM)
    assert not list(tmp_path.glob("jitwarm-deep-gemm-*"))


@pytest.mark.usefixtures("asked")
def test_a_process_ends_with_the_one_that_asked(tmp_path):
    starts = "import os; from jitwarm import Target; from jitwarm_vllm.deep_gemm_process import DeepGemmProcess\n"
    starts += "process = DeepGemmProcess(Target.parse('cuda:90'), 132, compiles=False)\n"
    starts += "print(process._process.pid, flush=True); os._exit(1)"
    done = subprocess.run([sys.executable, "-c", starts], capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    pid = int(done.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it has ended", 30)
    assert not list(tmp_path.glob("jitwarm-deep-gemm-*"))


@pytest.mark.usefixtures("asked")
def test_a_call_that_deepgemm_refuses_is_a_reason_in_its_own_words():
    """The columns of an FP8 weight are a multiple of 16 bytes, its unit of memory access."""
    with closing(DeepGemmProcess(HOPPER, 132, compiles=False)) as process:
        with pytest.raises(Unresolved, match="DeepGEMM: Assertion error"):
            process.reached(Gemm("linear", 512, 100, 1, 1, is_first=False, tokens=(1, 1)))
        assert process.reached(GEMM)  # and it goes on


def test_a_library_that_cannot_be_loaded_is_a_reason_in_its_own_words(tmp_path, monkeypatch):
    """As one whose extension is linked with a torch that is not here."""
    (tmp_path / "deep_gemm" / "include").mkdir(parents=True)
    (tmp_path / "deep_gemm" / "__init__.py").write_text("raise ImportError('undefined symbol: at_cuda')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unresolved, match="DeepGEMM: ImportError: undefined symbol: at_cuda"):
        DeepGemmProcess(HOPPER, 132, compiles=False)


@pytest.mark.usefixtures("library")
def test_without_nvcc_the_reason_says_so(monkeypatch, tmp_path):
    for name in ("DG_JIT_NVCC_COMPILER", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(described_device, "_USUAL_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(Unresolved, match="toolchain missing: DeepGEMM compiles with nvcc"):
        DeepGemmProcess(HOPPER, 132, compiles=False)
    assert not list(tmp_path.glob("jitwarm-deep-gemm-*"))


def test_nvcc_is_the_one_that_deepgemm_takes(monkeypatch, tmp_path):
    places = {name: tmp_path / name / "bin" for name in ("path", "usual", "cuda_path", "cuda_home")}
    for place in places.values():
        place.mkdir(parents=True)
        (place / "nvcc").write_text("#!/bin/sh\n")
        (place / "nvcc").chmod(0o755)
    for name in ("DG_JIT_NVCC_COMPILER", "DJ_JIT_NVCC_COMPILER", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(described_device, "_USUAL_HOME", str(tmp_path / "usual"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert described_device.find_nvcc() == str(places["usual"] / "nvcc")
    for variable, value, name in (
        ("PATH", places["path"], "path"),
        ("CUDA_PATH", tmp_path / "cuda_path", "cuda_path"),
        ("CUDA_HOME", tmp_path / "cuda_home", "cuda_home"),
    ):
        monkeypatch.setenv(variable, str(value))
        assert described_device.find_nvcc() == str(places[name] / "nvcc")


def test_a_compiler_that_cannot_compile_for_this_host_is_named(monkeypatch, tmp_path):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'gcc: fatal error: no such program' >&2\nexit 1\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("DG_JIT_NVCC_COMPILER", str(nvcc))
    with pytest.raises(Unresolved, match="no such program"):
        described_device.described(HOPPER, 132, tmp_path)
    assert os.environ.get("LD_PRELOAD") is None  # this process stays as it is
