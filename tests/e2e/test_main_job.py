"""The main job, through the command line, in fresh processes, with every compiler run counted."""

import json
import re
import shutil

import pytest

SMALL = [
    "--set",
    "example.hidden_sizes=[4096]",
    "--set",
    "example.intermediate_sizes=[2048]",
    "--set",
    "max_num_batched_tokens=64",
]


@pytest.fixture(scope="module")
def baked(commands, tmp_path_factory):
    """(directory, JSON document, compiler runs) of the whole example, baked for cuda:90."""
    out = tmp_path_factory.mktemp("baked") / "out"
    commands.counts()
    done = commands.run("bake", "--target", "cuda:90", "--out", out, "--json", check=0)
    return out, json.loads(done.stdout), commands.counts()


def keys_of(document, backend):
    return [key for kernel in document["kernels"] if kernel["backend"] == backend for key in kernel["keys"]]


def test_every_key_of_all_three_backends_is_compiled(baked):
    _, document, counts = baked
    assert document["outcomes"] == {"compiled": document["n_keys"]}
    assert {kernel["backend"] for kernel in document["kernels"]} == {"triton", "cutedsl", "tilelang"}
    assert counts["ptxas"] == len(keys_of(document, "triton")) > 3
    assert counts["cute"] == len(keys_of(document, "cutedsl")) > 1
    assert counts["nvcc"] == len(keys_of(document, "tilelang")) > 2
    assert document["n_compiles"] == sum(counts.values())


def test_the_directory_holds_a_real_binary_for_each_key(baked):
    out, document, _ = baked
    cubins = list((out / "triton").rglob("*.cubin"))
    assert len(cubins) == len(keys_of(document, "triton"))
    assert all(file.read_bytes().startswith(b"\x7fELF") for file in cubins)
    assert len(list((out / "objects").rglob("*.o"))) == len(keys_of(document, "cutedsl"))
    libraries = list((out / "tilelang").rglob("executable.so"))
    assert len(libraries) == len(keys_of(document, "tilelang"))
    assert all(b"arch sm_90a" in file.read_bytes() for file in libraries)


def test_each_key_has_a_manifest_that_names_its_files(baked):
    out, document, _ = baked
    manifests = [json.loads(file.read_text()) for file in (out / "manifest").glob("*.json")]
    assert {entry["key"] for entry in manifests} == {
        key["key"] for kernel in document["kernels"] for key in kernel["keys"]
    }
    for entry in manifests:
        assert entry["target"] == "cuda:90"
        assert entry["files"]
        assert all((out / name).is_file() for name in entry["files"])


def test_a_second_run_loads_everything_and_calls_no_compiler(baked, commands):
    out, first, _ = baked
    done = commands.run("bake", "--target", "cuda:90", "--out", out, "--json", check=0)
    document = json.loads(done.stdout)
    assert document["outcomes"] == {"loaded": first["n_keys"]}
    assert commands.counts() == {"ptxas": 0, "nvcc": 0, "cute": 0}
    assert document["n_compiles"] == 0


def test_a_store_that_was_moved_still_loads(baked, commands, tmp_path):
    out, first, _ = baked
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    hidden = out.with_name("hidden")
    out.rename(hidden)  # while the old place exists, Triton would quietly read that one
    try:
        done = commands.run("bake", "--target", "cuda:90", "--out", moved, "--json", check=0)
    finally:
        hidden.rename(out)
    assert json.loads(done.stdout)["outcomes"] == {"loaded": first["n_keys"]}
    assert commands.counts() == {"ptxas": 0, "nvcc": 0, "cute": 0}


@pytest.mark.parametrize(
    ("pattern", "content"),
    [("*.cubin", b""), pytest.param("*.json", b"{", marks=pytest.mark.soak), ("__grp__*.json", b'{"child_paths":')],
)
def test_a_damaged_triton_entry_is_compiled_again(baked, commands, tmp_path, pattern, content):
    """Triton itself takes an empty cubin for a hit, and before 3.8 fails for ever on a cut group file."""
    out = tmp_path / "out"
    shutil.copytree(baked[0], out)
    commands.run(
        "bake", "--target", "cuda:90", "--out", out, "--kernel", "*:fused*", check=0
    )  # mends what the copy moved
    commands.counts()
    victims = [
        file for file in sorted((out / "triton").rglob(pattern)) if "__grp__" in pattern or "__grp__" not in file.name
    ]
    victims[0].write_bytes(content)
    done = commands.run("bake", "--target", "cuda:90", "--out", out, "--kernel", "*:fused*", "--json", check=0)
    outcomes = json.loads(done.stdout)["outcomes"]
    assert outcomes["compiled"] == 1
    assert commands.counts()["ptxas"] == 1


def test_the_report_is_readable(baked, commands):
    out, document, _ = baked
    done = commands.run("bake", "--target", "cuda:90", "--out", out, check=0)
    assert "built for cuda:90, not loaded: no GPU here" in done.stdout
    assert f"all warm: {document['n_keys']} of {document['n_keys']} keys" in done.stdout
    for kernel in document["kernels"]:
        assert re.search(
            rf"{re.escape(kernel['id'])} +{kernel['backend']} +jitwarm-example 0\.1\.0 +\d+ +\d+ loaded", done.stdout
        )


def test_hip_builds_triton_and_leaves_the_others_unresolved(commands, tmp_path):
    done = commands.run("bake", "--target", "hip:gfx942", "--out", tmp_path / "out", "--json", *SMALL, check=1)
    document = json.loads(done.stdout)
    by_backend = {kernel["backend"]: {key["outcome"] for key in kernel["keys"]} for kernel in document["kernels"]}
    assert by_backend == {"triton": {"compiled"}, "cutedsl": {"unresolved"}, "tilelang": {"unresolved"}}
    assert keys_of(document, "cutedsl")[0]["error"].startswith("target not supported")
    assert keys_of(document, "tilelang")[0]["error"].startswith("toolchain missing: TileLang needs hipcc")
    binaries = list((tmp_path / "out" / "triton").rglob("*.hsaco"))
    assert len(binaries) == len(keys_of(document, "triton"))
    assert b"gfx942" in binaries[0].read_bytes()


def test_warm_writes_the_users_store(commands, tmp_path):
    done = commands.run(
        "warm", "--target", "cuda:90", "--kernel", "*:fused*", *SMALL, check=0, JITWARM_CACHE_DIR=str(tmp_path / "mine")
    )
    assert "all warm" in done.stdout
    assert len(list((tmp_path / "mine" / "triton").rglob("*.cubin"))) == 2
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o700


def test_a_plan_compiles_and_writes_nothing(commands, tmp_path):
    commands.counts()
    done = commands.run("plan", "--target", "cuda:90", "--json", check=0, JITWARM_CACHE_DIR=str(tmp_path / "none"))
    document = json.loads(done.stdout)
    assert document["n_keys"] > 5
    assert all(key["outcome"] is None for kernel in document["kernels"] for key in kernel["keys"])
    assert commands.counts() == {"ptxas": 0, "nvcc": 0, "cute": 0}
    assert not (tmp_path / "none" / "manifest").exists()


def test_a_settings_change_reaches_the_keys(commands):
    done = commands.run(
        "plan", "--target", "cuda:90", "--json", "--set", "dtype=float16", "--kernel", "*:gemm", check=0
    )
    assert all(
        '"dtype":["str","float16"]' in key["key"]
        for kernel in json.loads(done.stdout)["kernels"]
        for key in kernel["keys"]
    )


def test_explain_says_which_inputs_reach_a_key(commands):
    done = commands.run("plan", "--target", "cuda:90", "--explain", "example:gemm", check=0)
    assert "block_M=64, block_N=64" in done.stdout
    assert re.search(r"\n +m <= 64\n", done.stdout)
    assert re.search(r"\n +65 <= m <= 512\n", done.stdout)
    document = json.loads(
        commands.run("plan", "--target", "cuda:90", "--explain", "example:gemm", "--json", check=0).stdout
    )
    explained = document["explanations"]["example:gemm"]
    assert {entry["key"] for entry in explained} == {key["key"] for key in keys_of(document, "tilelang")}
    assert explained[0]["witness"]["m"] == 1
    table = commands.run("plan", "--target", "cuda:90", "--explain", "example:gemm", "--markdown", check=0).stdout
    assert "| key | reached by | for example |" in table
    assert "| 65 <= m <= 512 |" in table


def test_the_whole_job_is_one_function_for_servers(commands, tmp_path):
    program = (
        "import jitwarm\n"
        "config = {'extra': {'example': {'hidden_sizes': [4096]}}}\n"
        "report = jitwarm.warm(config, target='cuda:90', kernels='*:fused*', strict=True)\n"
        "print(report.outcomes)\n"
        "print(jitwarm.warm(config, target='cuda:90', kernels='*:fused*').outcomes)\n"
        "try:\n    jitwarm.warm(config, target='cuda:90', strict=True, kernels='*:nothing')\n"
        "except jitwarm.JitwarmError as exc:\n    print(exc.message)\n"
    )
    done = commands.python(program, JITWARM_CACHE_DIR=str(tmp_path / "store"))
    assert done.stdout.splitlines() == ["{'compiled': 2}", "{'already_warm': 2}", "no kernel matches '*:nothing'"], (
        done.stderr
    )


def test_a_bake_in_which_nothing_could_be_tried_is_a_toolchain_error(commands, tmp_path):
    arguments = ["bake", "--target", "cuda:90", "--out", tmp_path / "out", "--kernel", "*:gemm", *SMALL]
    done = commands.run(*arguments, check=3, CUDA_HOME="/nonexistent")
    assert "TileLang needs nvcc" in done.stdout
