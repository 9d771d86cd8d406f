"""Whatever a vLLM process serves shows our series, once: needs no vLLM. `tests/vllm_engine` has it in real servers."""

import os
import subprocess
import sys

import kits
import pytest
from metrics_kit import ROPE, miss, parsed, warm

from jitwarm.environment import LINEAGE

COMPILES = f"jitwarm_unexpected_compiles_total{ROPE}"
ENGINE = "0-aa"
# A process that serves metrics; it prints the page of `served`.
SERVE = """
import sys
import prometheus_client
import prometheus_client.multiprocess
from prometheus_client.exposition import generate_latest
from jitwarm.integrations.vllm import exposition
exposition.install()
exposition.install()
served = prometheus_client.REGISTRY
{then}
sys.stdout.write(generate_latest(served).decode())
"""
MULTI = "served = prometheus_client.CollectorRegistry(); prometheus_client.multiprocess.MultiProcessCollector(served)"


@pytest.fixture
def serve(tmp_path):
    """The page of a process with a lineage, and what it said."""

    def run(lineage, then="", **variables):
        given = {LINEAGE: lineage, "JITWARM_CACHE_DIR": tmp_path / "store", **variables}
        done = kits.python("-c", SERVE.format(then=then), **given)
        assert done.returncode == 0, done.stderr
        page = parsed(done.stdout)
        return {name: value for name, value in page.items() if name.startswith("jitwarm")}, done.stderr

    return run


def test_the_default_registry_has_it(serve, start_worker):
    start_worker(lineage=ENGINE).emit(*warm("a"), miss())
    assert serve(ENGINE)[0][COMPILES] == 1


def test_every_registry_of_the_multi_process_mode_has_it(serve, start_worker, tmp_path):
    """There a new registry is made for each request, and the process is a sister of the engine."""
    directory = tmp_path / "multiprocess"
    directory.mkdir()
    start_worker(lineage=f"{ENGINE}/0-core").emit(*warm("a"), miss())
    page, _ = serve(f"{ENGINE}/0-api", f"{MULTI}; {MULTI}", PROMETHEUS_MULTIPROC_DIR=directory)
    assert page[COMPILES] == 1


def test_a_server_that_registered_a_collector_itself_shows_it_once(serve, start_worker):
    start_worker(lineage=ENGINE).emit(*warm("a"), miss())
    own = "import jitwarm.metrics; served = prometheus_client.CollectorRegistry(); jitwarm.metrics.register(served)"
    assert serve(ENGINE, f"{own}; exposition._add(served)")[0][COMPILES] == 1


def test_the_store_is_the_one_of_additional_config(serve, start_worker, tmp_path):
    start_worker(lineage=ENGINE).emit(*warm("a"), miss())
    config = f"types.SimpleNamespace(additional_config={{'jitwarm': {{'cache_dir': {str(tmp_path / 'store')!r}}}}})"
    then = f"import types; exposition._remember({config})"
    assert serve(ENGINE, then, JITWARM_CACHE_DIR=tmp_path / "another")[0][COMPILES] == 1


def test_nothing_to_show_is_one_warning(serve, start_worker):
    start_worker(lineage="0-another").emit(*warm("a"), miss())
    page, said = serve(ENGINE, "generate_latest(served); generate_latest(served)")
    assert page == {}
    assert said.count("no metrics: no worker of this server has written events") == 1


def test_a_fault_of_ours_is_one_warning_and_costs_nobody_elses_metrics(serve):
    fault = "prometheus_client.Counter('others', 'of theirs').inc(); exposition._EXPOSITION._made = object()"
    page, said = serve(
        ENGINE, f"{fault}; generate_latest(served); assert b'others_total 1.0' in generate_latest(served)"
    )
    assert page == {}
    assert said.count("no metrics: AttributeError") == 1


def test_a_process_without_prometheus_does_not_import_it():
    source = "import sys; from jitwarm.integrations.vllm import exposition; exposition.install(); "
    done = kits.python("-c", source + "print(sorted({'prometheus_client', 'msgspec', 'json'} & set(sys.modules)))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_process_that_has_loaded_a_part_of_prometheus_is_left_in_peace():
    """As vLLM's workers are: the client without its multi-process mode."""
    source = """
import sys, types
sys.modules["prometheus_client"] = types.SimpleNamespace(REGISTRY=__import__("prometheus_client").REGISTRY)
sys.modules.pop("prometheus_client.multiprocess", None)
from jitwarm.integrations.vllm import exposition
exposition.install()
"""
    done = kits.python("-c", source)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_process_adds_itself_to_the_lineage_once():
    source = """
import os, subprocess, sys
from jitwarm.environment import join_lineage
join_lineage(); join_lineage()
print(os.environ["JITWARM_LINEAGE"], flush=True)
if len(sys.argv) > 1: subprocess.run([sys.executable, *sys.orig_argv[1:-1]], check=True)
if not os.fork(): join_lineage(); print(os.environ["JITWARM_LINEAGE"], flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", source, "again"], capture_output=True, text=True, check=True, env=os.environ
    )
    first, second, *forked = done.stdout.split()
    assert (first.count("/"), second.count("/")) == (0, 1)
    assert second.startswith(f"{first}/")
    assert sorted(line.count("/") for line in forked) == [1, 2]
