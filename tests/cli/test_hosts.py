"""`bake` for several targets, and what it says of hosts that cannot be used. Real clusters: `tests/integrations`."""

import json
import socket

import kits
import pytest

TINY = """
from jitwarm import Outcome, Unresolved, hookimpl
from kits import FourMembers, Key

class Tiny(FourMembers):
    def get_warmup_keys(self, config):
        return [Key(n) for n in config.for_plugin("tiny").get("sizes", [1])]

@hookimpl
def jitwarm_kernels():
    return [Tiny(name="scale")]

@hookimpl
def jitwarm_compile(target):
    if target.kind == "hip":
        raise Unresolved("not for AMD")
    return Outcome.LOADED
"""


@pytest.fixture(autouse=True)
def tiny(site):
    kits.install(site, "tiny", TINY)


def said(done):
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    return " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def bake(cli, tmp_path):
    def run(*arguments, **variables):
        return cli("bake", "--out", tmp_path / "out", *arguments, **variables)

    return run


def test_several_targets_are_one_array_and_the_worst_code(bake):
    targets = ("--target", "cuda:90", "--target=hip:gfx942", "--target", "cuda:100", "--target", "cuda:90")
    done = bake(*targets, "--json", "--set", "tiny.sizes=[1, 2]", "--kernel", "tiny:*")
    documents = kits.json_of(done)
    assert [(document["target"], document["outcomes"]) for document in documents] == [
        ("cuda:90", {"loaded": 2}),
        ("hip:gfx942", {"unresolved": 2}),
        ("cuda:100", {"loaded": 2}),
    ]
    assert done.returncode == 1


def test_several_targets_are_reported_one_after_another(bake):
    done = bake("--target", "cuda:90", "--target", "cuda:100")
    assert done.returncode == 0
    assert done.stdout.index("jitwarm cuda:90") < done.stdout.index("jitwarm cuda:100")


def test_one_target_is_one_document(bake):
    assert kits.json_of(bake("--target", "cuda:90", "--target", "cuda:90", "--json"))["target"] == "cuda:90"


def test_a_target_that_is_none_is_told_before_any_is_baked(bake, tmp_path):
    done = bake("--target", "cuda:90", "--target", "sm_90")
    assert done.returncode == 2
    assert "unknown target 'sm_90'" in said(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.soak
def test_one_directory_holds_the_binaries_of_several_targets(tmp_path):
    pytest.importorskip("triton")
    targets = ("--target", "cuda:90", "--target", "cuda:80")
    options = ("--kernel", "*rms_norm*", "--set", "example.hidden_sizes=[4096]", "--json")
    done = kits.python(
        "-m",
        "jitwarm",
        "bake",
        "--out",
        tmp_path / "out",
        *targets,
        *options,
        JITWARM_PLUGINS="example",
        JITWARM_PLAN_TIMEOUT_S=300,
    )
    assert [document["outcomes"] for document in json.loads(done.stdout)] == [{"compiled": 2}] * 2
    assert len(list((tmp_path / "out").rglob("*.cubin"))) == 4


@pytest.mark.parametrize("hosts", ["rays", "localhost:8786", "http://localhost", ""])
def test_hosts_that_are_none_are_a_usage_error(bake, hosts):
    done = bake("--target", "cuda:90", "--hosts", hosts)
    assert done.returncode == 2
    assert f"unknown hosts {hosts!r}" in said(done)
    assert "'ray://HOST:10001' for Ray, 'tcp://HOST:8786' for Dask's scheduler" in said(done)


@pytest.mark.parametrize(
    ("hosts", "module", "extra"),
    [("ray", "ray", "jitwarm[ray]"), ("tcp://localhost:1", "distributed", "jitwarm[dask]")],
)
def test_an_extra_that_is_not_installed_is_named(bake, site, hosts, module, extra):
    (site / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')")
    done = bake("--target", "cuda:90", "--hosts", hosts)
    assert done.returncode == 3
    assert "is not installed" in said(done)
    assert f"pip install '{extra}'" in said(done)


@pytest.mark.parametrize(
    ("module", "scheme"),
    [("ray", "ray"), pytest.param("ray", "ray://", marks=pytest.mark.soak), ("distributed", "tcp://")],
)
def test_a_cluster_that_does_not_answer_is_one_sentence(bake, module, scheme, tmp_path):
    pytest.importorskip(module)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and never listens
        hosts = scheme + (f"127.0.0.1:{silent.getsockname()[1]}" if "://" in scheme else "")
        done = bake("--target", "cuda:90", "--hosts", hosts, RAY_TMPDIR=str(tmp_path), RAY_ADDRESS=None)
    assert done.returncode == 3
    name = "Ray cluster" if module == "ray" else "Dask scheduler"
    assert f"no {name} answers at {'auto' if scheme == 'ray' else hosts}" in said(done)
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()
