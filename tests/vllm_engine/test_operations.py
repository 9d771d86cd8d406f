"""What an operator sees of a real `vllm serve`: metrics through a real Prometheus, spans at an OTLP receiver, the ready file."""

import json
import re
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from engine_kit import MODEL, environment
from kits import install
from metrics_kit import parsed
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from serving import Prometheus, Server, prometheus_binary

pytestmark = [pytest.mark.vllm, pytest.mark.xdist_group("serving")]  # one server answers several of these tests

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "monitor-with-prometheus.md"
SCALE = '{backend="triton",kernel="alpha:Scale"}'
COMPILES = f"jitwarm_unexpected_compiles_total{SCALE}"


class Receiver(TraceServiceServicer):
    """An OTLP receiver, as vLLM's exporter speaks to it."""

    def __init__(self):
        self.spans = []
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def Export(self, request, _):
        self.spans += [
            span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
        ]
        return ExportTraceServiceResponse()

    def named(self, name):
        """The only span of a name; None before it came."""
        found = [span for span in self.spans if span.name == name]
        assert len(found) <= 1, found
        return found[0] if found else None

    def close(self):
        self._server.stop(0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """With a model, and a site of the package `alpha`; vLLM's command line asks for metadata that its CPU build lacks."""
    found = tmp_path_factory.mktemp("serving")
    (found / "model").mkdir()
    (found / "model" / "config.json").write_text(json.dumps(MODEL))
    source = Path(__file__).parent / "packages" / "alpha_kernels.py"
    install(found / "site", "alpha_kernels", source.read_text(), plugin="alpha")
    info = found / "site" / "vllm-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    return found


@pytest.fixture(scope="module")
def start_server(directory):
    """Start `vllm serve` over one store; keyword arguments are variables."""
    servers = []

    def start(*options, store="store", **variables):
        environ = environment(directory, directory / "site", directory / store) | {"VLLM_SERVER_DEV_MODE": "1"}
        log = directory / f"server{len(servers)}.log"
        servers.append(Server(directory / "model", log, environ | variables, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="module")
def receiver():
    found = Receiver()
    yield found
    found.close()


@pytest.fixture(scope="module")
def ready_file(directory):
    """Left by an earlier start, whose processes are dead."""
    file = directory / "ready.json"
    state = {"rank": 0, "host": "elsewhere", "pid": 1, "born": 1, "phase": "done", "n_done": 1, "n_keys": 1}
    file.write_text(json.dumps({"ready": True, "start": "before", "ranks": [state]}))
    return file


@pytest.fixture(scope="module")
def server(start_server, receiver, ready_file):
    """One server, with everything switched on."""
    endpoint = f"http://127.0.0.1:{receiver.port}"
    found = start_server("--otlp-traces-endpoint", endpoint, JITWARM_READY_FILE=str(ready_file), JITWARM_RUN_ID="same")
    found.wait_until(lambda: not ready_file.exists(), "what the earlier start left is removed")
    found.await_health()
    return found


def queries():
    """The queries of the how-to, as they stand there."""
    return re.findall(r"\| `([^`]+)`", HOW_TO.read_text())


def rules():
    """The alerting rules of the how-to, as they stand there."""
    [text] = re.findall(r"```yaml\n# rules.yml\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    return text


def test_prometheus_shows_and_alerts_what_compiles_while_serving(server, directory):
    if prometheus_binary() is None:
        pytest.skip("no Prometheus: install Debian's package, or name the binary in the variable PROMETHEUS")
    prometheus = Prometheus(server.port, directory / "prometheus", rules())
    try:
        prometheus.wait_until(lambda: prometheus.value("jitwarm_cold_keys") == 0, "the first scrape")
        assert prometheus.query("jitwarm_keys") == [({"outcome": "compiled", "plugin": "alpha"}, 3)]
        assert prometheus.value("jitwarm_workers") == prometheus.value("jitwarm_watched_workers") == 1
        assert prometheus.value("jitwarm_warmup_seconds") > 0
        [(info, _)] = prometheus.query("jitwarm_info")
        assert (info["run"], info["target"]) == ("same", "cuda:90")
        assert prometheus.value("sum(jitwarm_unexpected_compiles_total)") == 0
        assert prometheus.value('up{job="vllm"}') == 1
        assert prometheus.query("vllm:num_requests_running") != []

        assert server.use_triton(128) == ["used"]  # it was warmed
        assert server.use_triton(256) == ["used"]  # it was not
        prometheus.wait_until(lambda: prometheus.value(COMPILES) == 1, "the compile is shown")
        assert prometheus.value(f"jitwarm_unexpected_compile_seconds_total{SCALE}") > 0
        assert prometheus.value("sum(jitwarm_unexpected_compiles_total)") == 1
        prometheus.wait_until(
            lambda: (prometheus.value("sum(increase(jitwarm_unexpected_compiles_total[10m]))") or 0) > 0,
            "the first compile is an increase",
        )
        prometheus.wait_until(lambda: "KernelCompiledWhileServing" in prometheus.firing, "the alert")
        assert prometheus.firing == {"KernelCompiledWhileServing"}
        shown = {query for query in queries() if prometheus.query(query)}
        assert {query for query in queries() if "unexpected_compile" in query or "[" not in query} - shown == {
            'count(count_values("keys", sum by (instance) (jitwarm_keys))) > 1'
        }
    finally:
        prometheus.end()


def test_spans_of_the_warm_up_are_exported_below_vllms_own(server, receiver):
    server.wait_until(lambda: receiver.named("jitwarm"), "the spans come")
    run, plan, warmup = (receiver.named(name) for name in ("jitwarm", "jitwarm plan", "jitwarm warm-up"))
    assert plan.parent_span_id == warmup.parent_span_id == run.span_id
    keys = [span for span in receiver.spans if span.parent_span_id == warmup.span_id]
    assert sorted(span.name for span in keys) == ["jitwarm alpha:Scale"] * 2 + ["jitwarm alpha:first_rank_only"]
    assert run.parent_span_id in {span.span_id for span in receiver.spans if not span.name.startswith("jitwarm")}
    assert run.start_time_unix_nano <= plan.end_time_unix_nano <= warmup.start_time_unix_nano
    assert all(warmup.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano for span in keys)
    attributes = {item.key: item.value for item in run.attributes}
    assert attributes["jitwarm.target"].string_value == "cuda:90"
    assert attributes["jitwarm.n_compiled"].int_value == 3


def test_every_process_of_the_server_is_content(server):
    """Engine core and worker have loaded less than the process that serves the page."""
    assert "not active" not in server.log
    assert "no metrics" not in server.log
    assert "no spans" not in server.log


def test_the_ready_file_is_ready_when_the_server_is(server, ready_file):
    found = json.loads(ready_file.read_text())
    assert (found["ready"], found["phase"], found["n_done"], found["n_keys"]) == (True, "done", 3, 3)
    [rank] = found["ranks"]
    assert (rank["rank"], rank["outcomes"]) == (0, {"compiled": 3})


def test_each_of_two_api_servers_shows_both_ranks_and_its_own_engine_alone(server, start_server):
    """Beside another engine, over the same store and even under the same name of the run."""
    server.use_triton(512)
    other = start_server(
        "--api-server-count", "2", "--tensor-parallel-size", "2",
        JITWARM_RUN_ID="same", VLLM_CPU_OMP_THREADS_BIND="0|1", VLLM_CPU_NUM_OF_RESERVED_CPU="0",
    )  # fmt: skip
    other.await_health()
    assert parsed(other.metrics)[COMPILES] == 0
    other.use_triton(1024)
    assert len(other.api_servers) == 2
    for pid in other.api_servers:
        page = parsed(other.metrics_of(pid))
        assert page[COMPILES] == 2  # once in each rank
        assert page["jitwarm_workers"] == page["jitwarm_watched_workers"] == 2
        assert page['jitwarm_keys{outcome="loaded",plugin="alpha"}'] == 3
    assert parsed(server.metrics)["jitwarm_workers"] == 1


def test_a_log_that_cannot_be_written_is_one_warning_and_the_page_has_vllms_metrics(start_server, directory):
    (directory / "full").mkdir(mode=0o700)
    (directory / "full" / "events").write_text("no directory")
    server = start_server(store="full")
    server.await_health()
    for _ in range(3):
        page = parsed(server.metrics)
        assert any(name.startswith("vllm:") for name in page)
        assert not any(name.startswith("jitwarm") for name in page)
    assert len(re.findall("jitwarm: no metrics: no worker of this server has written events", server.log)) == 1


@pytest.mark.parametrize(
    ("variables", "additional", "why", "is_logged"),
    [
        ({"JITWARM_TARGET": None}, {}, "no target: this machine has no GPU to ask", True),
        ({"JITWARM_DISABLE": "1"}, {}, "switched off", False),
        pytest.param({}, {"disable": ["*"]}, "switched off", False, marks=pytest.mark.soak),
        ({}, {"disable": ["*"], "ready_file": "other.json"}, "switched off", False),
    ],
)
def test_a_start_without_a_warm_up_is_ready_at_once_and_says_why(
    start_engine, tmp_path, variables, additional, why, is_logged
):
    """vLLM starts as ever. Else a pod that waits for the ready file would never start."""
    file = tmp_path / additional.get("ready_file", "ready.json")
    additional |= {"ready_file": str(file)} if "ready_file" in additional else {}
    given = {"JITWARM_READY_FILE": str(tmp_path / "ready.json"), "VLLM_ENABLE_V1_MULTIPROCESSING": "0", **variables}
    started = start_engine(llm={"additional_config": {"jitwarm": additional}}, **given)
    assert len(started.answer["tokens"]) == 3
    found = json.loads(file.read_text())
    assert (found["ready"], found["phase"]) == (True, "no warm-up")
    assert why in found["error"]
    assert started.all("key_end") == []
    assert [why in line for line in started.lines] == [True] * is_logged
