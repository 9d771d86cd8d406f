"""Packages as users install them: a wheel built here, and broken neighbours beside it."""

import json

import pytest

BROKEN = {
    "no_import": "import a_module_that_does_not_exist\n",
    "raises": "from jitwarm import hookimpl\n@hookimpl\ndef jitwarm_kernels():\n    raise RuntimeError('my hook is broken')\n",
    "misspelt": "from jitwarm import hookimpl\n@hookimpl\ndef jitwarm_kernel(config):\n    return []\n",
    "no_kernel": "from jitwarm import hookimpl\n@hookimpl\ndef jitwarm_kernels():\n    return [object()]\n",
    "exits": "raise SystemExit('I leave')\n",
}
REASONS = {
    "no_import": "No module named 'a_module_that_does_not_exist'",
    "raises": "RuntimeError: my hook is broken",
    "misspelt": "did you mean jitwarm_kernels?",
    "no_kernel": "is no kernel: it has no CompileKey, dispatch, get_warmup_keys, compile",
    "exits": "SystemExit: I leave",
}


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory):
    """A directory in which five broken distributions are installed."""
    site = tmp_path_factory.mktemp("neighbours")
    for name, source in BROKEN.items():
        (site / f"{name}_plugin.py").write_text(source)
        metadata = site / f"{name}_plugin-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[jitwarm.kernels]\n{name} = {name}_plugin\n")
    return site


def test_the_wheels_kernels_appear_and_each_broken_neighbour_is_named_with_its_error(commands, neighbours):
    done = commands.run("plugins", "--json", check=0, sites=[neighbours])
    document = json.loads(done.stdout)
    assert {"example:fused_add_rms_norm", "example:silu_and_mul", "example:gemm"} <= {
        k["id"] for k in document["kernels"]
    }
    assert all(
        k["distribution"] == "jitwarm-example 0.1.0" for k in document["kernels"] if k["id"].startswith("example:")
    )
    refused = {plugin["name"]: plugin["reason"] for plugin in document["refused"]}
    assert set(refused) == set(BROKEN)
    for name, reason in REASONS.items():
        assert reason in refused[name], name
    assert "Traceback" not in done.stdout + done.stderr


def test_broken_neighbours_do_not_stop_a_bake_unless_it_is_strict(commands, neighbours, tmp_path):
    bake = ["bake", "--target", "cuda:90", "--out", tmp_path / "out", "--kernel", "*:silu*"]
    done = commands.run(*bake, check=0, sites=[neighbours])
    assert "plugin refused raises (raises-plugin 1.0): RuntimeError: my hook is broken" in done.stdout
    commands.run(*bake, "--strict", check=1, sites=[neighbours])
    commands.run(*bake, "--strict", check=0, sites=[neighbours], JITWARM_PLUGINS="example")


def test_plugins_are_admitted_by_glob(commands, neighbours):
    done = commands.run("plugins", "--json", check=0, sites=[neighbours], JITWARM_PLUGINS="exa*")
    document = json.loads(done.stdout)
    assert not document["refused"]
    assert set(document["left_out"]) == {*BROKEN, "vllm_kernels"}  # all that is installed but the example


def test_kernels_are_disabled_by_glob_and_say_so(commands, tmp_path):
    done = commands.run(
        "bake", "--target", "cuda:90", "--out", tmp_path / "out", "--json", check=0,
        JITWARM_DISABLE="example:gemm,*:fused*"
    )  # fmt: skip
    rows = {
        kernel["id"]: [(key["outcome"], key["error"]) for key in kernel["keys"]]
        for kernel in json.loads(done.stdout)["kernels"]
    }
    assert rows["example:gemm"] == rows["example:fused_add_rms_norm"] == [("skipped", "disabled by JITWARM_DISABLE")]
    assert {outcome for outcome, _ in rows["example:silu_and_mul"]} == {"compiled"}


def test_a_glob_for_a_refused_plugin_says_why_it_was_refused(commands, neighbours):
    done = commands.run("plan", "--target", "cuda:90", "--kernel", "raises:*", check=2, sites=[neighbours])
    assert "plugin raises was refused: RuntimeError: my hook is broken" in done.stderr
