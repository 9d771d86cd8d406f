"""Real clusters of Ray and Dask bake the example package; a node that is killed in the middle costs no key."""

import contextlib
import json
import os
import subprocess
import sys

import kits
import pytest
from clusters import dask_cluster, ray_cluster
from processes import wait_until

pytest.importorskip("ray")
pytest.importorskip("distributed")

CLUSTERS = {"ray": ray_cluster, "dask": dask_cluster}
# The processes of a node that its executor consists of; not what jitwarm has started there.
OWN = {"ray": ["raylet/raylet"], "dask": ["dask_worker", "spawn_main", "multiprocessing"]}
SMALL = ["--set", "example.hidden_sizes=[4096]", "--set", "example.intermediate_sizes=[2048]"]
N_KEYS = 6
pytestmark = pytest.mark.timeout(1500)  # two cores start a cluster, and three compilers in each of its processes


@pytest.fixture(params=["ray", pytest.param("dask", marks=pytest.mark.soak)])
def kind(request):
    return request.param


@pytest.fixture
def cluster(kind):
    with CLUSTERS[kind]() as made:
        yield made


@pytest.fixture
def baking(tmp_path, kind, cluster):
    """Start a bake of the example in a process of its own."""
    started = []

    def start(*options, hosts=None):
        hosts = hosts or ("ray" if kind == "ray" else cluster.address)
        command = [
            "bake",
            "--out",
            tmp_path / "out",
            "--target",
            "cuda:90",
            *SMALL,
            "--json",
            "--hosts",
            hosts,
            *options,
        ]
        environ = {
            **os.environ,
            "JITWARM_PLUGINS": "example",
            "JITWARM_PLAN_TIMEOUT_S": "300",
            "CUDA_VISIBLE_DEVICES": "",
            "RAY_ADDRESS": cluster.address,
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "jitwarm", *map(str, command)],
                env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def document_of(process):
    out, said = process.communicate(timeout=900)
    assert process.returncode == 0, said[-3000:] + out[-3000:]
    return json.loads(out)


def events(root):
    lines = [line for file in root.glob("events/*/*.jsonl") for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def named(root, *names):
    return [event for event in events(root) if event["event"] in names]


def require_whole(root, document):
    """Every key of all three DSLs was built on a host, each once, and nothing here."""
    assert document["outcomes"] == {"compiled": N_KEYS}
    assert document["n_compiles"] == N_KEYS
    assert {kernel["backend"] for kernel in document["kernels"]} == {"triton", "cutedsl", "tilelang"}
    built = [(event["kernel"], event["key"]) for event in named(root, "built_on_host")]
    assert len(built) == len(set(built)) == N_KEYS
    assert named(root, "host_failed", "hosts_unavailable", "child_start", "compile") == []


def test_a_node_that_is_killed_in_the_middle_loses_no_key_and_a_second_bake_asks_nobody(
    kind, cluster, baking, tmp_path
):
    root = tmp_path / "out"
    process = baking()
    is_building = lambda: process.poll() is not None or cluster.processes("two", "jitwarm.child")  # noqa: E731
    wait_until(is_building, "the node has begun to build its first key", 300)
    assert process.poll() is None, document_of(process)
    cluster.kill(cluster.processes("two", *OWN[kind]))
    assert len(named(root, "built_on_host")) < N_KEYS
    require_whole(root, document_of(process))
    wait_until(lambda: not cluster.processes("two", "jitwarm.child"), "what the node had started is gone", 60)

    again = ["bake", "--out", root, "--target", "cuda:90", *SMALL, "--json"]
    document = kits.json_of(kits.python("-m", "jitwarm", *again, JITWARM_PLUGINS="example", JITWARM_PLAN_TIMEOUT_S=300))
    assert document["outcomes"] == {"loaded": N_KEYS}
    assert document["n_compiles"] == 0
    cluster.kill(cluster.processes("", *OWN["ray"], *OWN["dask"]))
    with contextlib.suppress(AssertionError):
        wait_until(lambda: not cluster.leftovers(), "hosts leave no files behind", 60)
    assert [str(file) for place in cluster.leftovers() for file in (place, *place.rglob("*"))] == []
