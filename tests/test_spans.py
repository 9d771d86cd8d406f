"""Spans of a warm-up: as a server's own provider exports them, and as they reach a real receiver."""

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import kits
import pytest
from kits import FourMembers, Key, Plugin
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from jitwarm import Target, WarmupConfig, spans
from jitwarm.session import Session
from jitwarm.settings import Asked, Settings
from jitwarm.spans import Spans


class Failing(FourMembers):
    def compile(self, key):
        raise ValueError("no such tile")


class OneSlow(FourMembers):
    def compile(self, key):
        time.sleep(key.n == 30)
        super().compile(key)


@pytest.fixture
def exported(monkeypatch):
    """What a provider of the process exports; a process has one for life, so it is named to us and not to OpenTelemetry."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "_provider_of_server", lambda: provider)
    return exporter


@pytest.fixture
def warm_up(tmp_path, monkeypatch):
    """One run over kernels, with spans; returns what was complained of."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(*kernels):
        told = []
        asked = Asked(WarmupConfig(), Settings(plugins=(), isolate=False))
        session = Session(asked, Target("cuda", "90"), root=tmp_path / "store", listeners=[Spans(told.append)], rank=3)
        session.registry.add("site", Plugin(*kernels))
        session.run(session.plan())
        session.finish()
        return told

    return run


def by_name(exporter):
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_run_has_a_span_with_its_parts_and_keys_below(warm_up, exported):
    good = FourMembers(Key(1), Key(2), backend="workshop", name="good")
    assert warm_up(good, Failing(Key(3), backend="workshop", name="bad")) == []
    found = by_name(exported)
    run, plan, warmup = (found[name] for name in ("jitwarm", "jitwarm plan", "jitwarm warm-up"))
    assert run.parent is None
    assert {plan.parent.span_id, warmup.parent.span_id} == {run.context.span_id}
    keys = [
        span for span in exported.get_finished_spans() if span.parent and span.parent.span_id == warmup.context.span_id
    ]
    assert sorted(span.name for span in keys) == ["jitwarm site:bad", "jitwarm site:good", "jitwarm site:good"]
    assert run.start_time == plan.start_time <= plan.end_time == warmup.start_time <= warmup.end_time == run.end_time
    assert all(warmup.start_time <= span.start_time <= span.end_time <= warmup.end_time for span in keys)
    assert dict(run.attributes) | {"jitwarm.run": ""} == {
        "jitwarm.target": "cuda:90", "jitwarm.run": "", "jitwarm.rank": 3, "jitwarm.n_keys": 3, "jitwarm.n_compiled": 2,
        "jitwarm.n_failed": 1, "jitwarm.n_key_spans": 3,
    }  # fmt: skip


def test_a_key_that_failed_is_an_error_with_its_reason(warm_up, exported):
    warm_up(Failing(Key(3), backend="workshop", name="bad"))
    span = by_name(exported)["jitwarm site:bad"]
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError: no such tile")
    assert (span.attributes["jitwarm.outcome"], span.attributes["jitwarm.label"]) == ("failed", "n=3")


def test_of_many_keys_the_slowest_have_a_span(warm_up, exported, monkeypatch):
    monkeypatch.setattr(spans, "MAX_KEYS", 5)
    warm_up(OneSlow(*map(Key, range(40)), backend="workshop"))
    labels = [
        span.attributes["jitwarm.label"] for span in exported.get_finished_spans() if span.name == "jitwarm site:four"
    ]
    assert len(labels) == 5
    assert "n=30" in labels
    run = by_name(exported)["jitwarm"]
    assert (run.attributes["jitwarm.n_keys"], run.attributes["jitwarm.n_key_spans"]) == (40, 5)


def test_it_goes_below_the_span_that_the_environment_passes_on(warm_up, exported, monkeypatch):
    monkeypatch.setenv("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    warm_up(FourMembers(Key(1), backend="workshop"))
    parent = by_name(exported)["jitwarm"].parent
    assert (parent.trace_id, parent.span_id) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)


def test_a_provider_that_raises_costs_the_spans_and_one_sentence(warm_up, monkeypatch):
    class Broken:
        def get_tracer(self, name):
            raise RuntimeError("no tracer today")

    monkeypatch.setattr(spans, "_provider_of_server", Broken)
    assert warm_up(FourMembers(Key(1), backend="workshop")) == ["no spans: RuntimeError: no tracer today"]


# --- in processes of their own: what a process exports by itself ------------------------------------------------------------

WARM = "import jitwarm, sys; jitwarm.warm(target='cuda:90'); print('opentelemetry' in sys.modules)"


@pytest.fixture
def receiver():
    """A real OTLP receiver over HTTP: (url, spans that came)."""
    came = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            came.extend(
                span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", came
    server.shutdown()
    server.server_close()


def warmed(**variables):
    done = kits.python("-c", WARM, JITWARM_PLUGINS="", CUDA_VISIBLE_DEVICES="", **variables)
    assert done.returncode == 0, done.stderr
    return done


def test_the_environment_alone_switches_them_on(receiver):
    url, came = receiver
    warmed(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert [span.name for span in came] == ["jitwarm plan", "jitwarm warm-up", "jitwarm"]


def test_where_nobody_asks_nothing_is_imported(receiver):
    url, came = receiver
    assert warmed().stdout == "False\n"
    for switch in ({"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}):
        assert warmed(OTEL_EXPORTER_OTLP_ENDPOINT=url, **switch).stdout == "False\n"
    assert came == []


def test_a_receiver_that_is_not_there_fails_no_run():
    variables = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    warmed(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", **variables)


def test_without_the_packages_it_is_one_sentence(tmp_path):
    """An environment that names an endpoint, where OpenTelemetry is not installed."""
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError('no opentelemetry', name='opentelemetry')")
    done = warmed(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    )
    assert "jitwarm: no spans: ModuleNotFoundError" in done.stderr
