"""OpenTelemetry spans of a warm-up, made when it is over, from its events: one for the run, below it plan, warm-up and keys.

Where a server has set up tracing (vLLM with `--otlp-traces-endpoint`), its provider exports them, below the span that the server
passes on. Elsewhere `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` switches them on, with an exporter of
our own. Nothing is imported and nothing kept where neither is so, and exporting is the business of the provider's own thread.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_KEYS = 200  # as spans, those that took longest; exporters drop what does not fit into their queue, 2,048 by default
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_COLD = frozenset({"failed", "timed_out", "unresolved"})


@dataclass
class _Key:
    """One key of the run; times in nanoseconds of the wall clock, 0 where it did not come to that."""

    kernel: str
    digest: str
    label: str
    start_ns: int = 0
    end_ns: int = 0
    outcome: str = ""
    error: str = ""
    build_seconds: float = 0.0


class Spans:
    """Listens to one run, and hands its spans over at `run_end`. Never raises: a run goes on without spans.

    Args:
        complain: Called with one sentence if there can be no spans, though they are wanted.
    """

    def __init__(self, complain: Callable[[str], None] = lambda _: None) -> None:
        self._complain = complain
        self._is_on = is_wanted()
        self._start_ns = self._turn_ns = 0
        self._attributes: dict[str, Any] = {}
        self._keys: dict[tuple[str, str], _Key] = {}
        self._by_text: dict[tuple[str, str], _Key] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event into account."""
        handler = getattr(self, f"_on_{event['event']}", None) if self._is_on else None
        if handler is None:
            return
        try:
            handler(event)
        except Exception as exc:  # noqa: BLE001 - as said
            self._is_on = False
            self._complain(f"no spans: {type(exc).__name__}: {exc}")

    def _on_phase_start(self, event: Mapping[str, Any]) -> None:
        self._start_ns = self._start_ns or event["t_ns"]
        self._turn_ns = event["t_ns"]

    def _on_run_start(self, event: Mapping[str, Any]) -> None:
        self._start_ns = self._start_ns or event["t_ns"]
        names = ("target", "run", "rank")
        self._attributes = {f"jitwarm.{name}": event[name] for name in names if name in event}

    def _on_kernel_planned(self, event: Mapping[str, Any]) -> None:
        self._turn_ns = event["t_ns"]

    def _on_key_planned(self, event: Mapping[str, Any]) -> None:
        self._turn_ns = event["t_ns"]
        kernel = event["kernel"]
        key = _Key(kernel, event["digest"], event["label"])
        self._keys[kernel, key.digest] = self._by_text[kernel, event["key"]] = key

    def _on_build_start(self, event: Mapping[str, Any]) -> None:
        if key := self._by_text.get((event["kernel"], event["key"])):
            key.start_ns = key.start_ns or event["t_ns"]

    def _on_built_in_child(self, event: Mapping[str, Any]) -> None:
        if key := self._by_text.get((event["kernel"], event["key"])):
            key.build_seconds = event["seconds"]

    def _on_key_start(self, event: Mapping[str, Any]) -> None:
        key = self._keys[event["kernel"], event["digest"]]
        key.start_ns = key.start_ns or event["t_ns"]

    def _on_key_end(self, event: Mapping[str, Any]) -> None:
        key = self._keys[event["kernel"], event["digest"]]
        key.end_ns, key.outcome, key.error = event["t_ns"], event["outcome"], event["error"] or ""

    def _on_run_end(self, event: Mapping[str, Any]) -> None:
        self._is_on = False
        self._hand_over(_tracer(), event["t_ns"])

    def _hand_over(self, tracer: Any, end_ns: int) -> None:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - only where spans are wanted

        ended = sorted((key for key in self._keys.values() if key.end_ns), key=lambda key: key.start_ns - key.end_ns)
        attributes = {**self._attributes, **self._counts(), "jitwarm.n_key_spans": len(ended[:MAX_KEYS])}
        run = tracer.start_span("jitwarm", context=_parent(), start_time=self._start_ns, attributes=attributes)
        below = set_span_in_context(run)
        tracer.start_span("jitwarm plan", context=below, start_time=self._start_ns).end(self._turn_ns)
        warmup = tracer.start_span("jitwarm warm-up", context=below, start_time=self._turn_ns)
        for key in ended[:MAX_KEYS]:
            _hand_over_key(tracer, set_span_in_context(warmup), key)
        warmup.end(end_ns)
        run.end(end_ns)

    def _counts(self) -> dict[str, int]:
        outcomes = Counter(key.outcome for key in self._keys.values() if key.end_ns)
        return {"jitwarm.n_keys": len(self._keys), **{f"jitwarm.n_{name}": n for name, n in outcomes.items()}}


def _hand_over_key(tracer: Any, context: Any, key: _Key) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - as above

    names = ("kernel", "digest", "label", "outcome", "build_seconds")
    attributes = {f"jitwarm.{name}": getattr(key, name) for name in names}
    span = tracer.start_span(f"jitwarm {key.kernel}", context=context, start_time=key.start_ns, attributes=attributes)
    if key.outcome in _COLD:
        span.set_status(Status(StatusCode.ERROR, key.error))
    span.end(key.end_ns)


def is_wanted() -> bool:
    """Whether a server has set tracing up in this process, or the environment names an endpoint. Imports nothing."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    names_none = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
    names_place = any(os.environ.get(name) for name in _ENDPOINTS)
    return _provider_of_server() is not None or (names_place and not names_none)


def _provider_of_server() -> Any:
    trace, sdk = (sys.modules.get(f"opentelemetry.{name}") for name in ("trace", "sdk.trace"))
    provider: Any = trace.get_tracer_provider() if trace else None
    return provider if sdk and isinstance(provider, sdk.TracerProvider) else None


def _tracer() -> Any:
    """A tracer of the server's provider, else of one that exports to where the environment says."""
    provider = _provider_of_server()
    if provider is None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above

        name = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "jitwarm"}
        provider = TracerProvider(resource=Resource.create(name))  # it empties its queue at exit
        provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider.get_tracer("jitwarm")


def _exporter() -> Any:
    """What speaks the protocol that the environment names; it reads endpoint, headers and certificates there itself."""
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "grpc")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - as above
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above

    return OTLPSpanExporter()


def _parent() -> Any:
    """The current span's context, else what whoever started this process passes on in `traceparent`; else a trace begins."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - as above
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - as above

    if get_current_span().get_span_context().is_valid:
        return None
    found = {name: os.environ.get(name) or os.environ.get(name.upper()) for name in ("traceparent", "tracestate")}
    return TraceContextTextMapPropagator().extract({name: value for name, value in found.items() if value})
