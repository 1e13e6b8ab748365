# SPDX-License-Identifier: Apache-2.0
"""Spans of OpenTelemetry for each request, sent over OTLP; the packages are an extra.

A request's span begins with it, so that whoever is asked next can name it as its parent. Its parts
are made at its end, of the times that its record has: nothing is done for a chunk.

    POST /v1/chat/completions
    ├─ encode      the prompt's text to ids
    ├─ constrain   what the answer is held to
    └─ engine      one for each sequence
       ├─ queue    until the engine took it
       ├─ prefill  until its first token
       └─ decode   until its last
"""

import re
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from trellis.errors import TrellisError
from trellis.gateway.metrics.meter import Meter
from trellis.gateway.metrics.record import OTHER, Record
from trellis.gateway.request_body import header

TRACES = "/v1/traces"
FORM = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
MISSING = (
    "--otlp-endpoint: OpenTelemetry is not installed: python3 -m pip install opentelemetry-sdk"
    " opentelemetry-exporter-otlp-proto-http, for the Python that launches"
)
OPERATIONS = {"/v1/chat/completions": "chat", "/v1/responses": "chat"}
OPERATIONS |= {"/v1/embeddings": "embeddings"}  # the others complete texts


def traceparent(scope: Mapping[str, Any]) -> str:
    """What a client says its own span is; "" for nothing, and for what is no such header."""
    sent = header(scope.get("headers", []), b"traceparent")
    return sent if FORM.fullmatch(sent) else ""


class Tracing:
    """Makes and sends spans, on a thread of the SDK's."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint`: where the receiver is, without a path: http://host:4318.

        Raises TrellisError where the packages are not installed.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import (
                TraceContextTextMapPropagator,
            )
        except ImportError as error:
            raise TrellisError(f"{MISSING} ({error})") from None
        resource = Resource.create()  # by OTEL_SERVICE_NAME and its like
        if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "trellis"}))
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + TRACES)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("trellis.gateway")
        self._contexts = TraceContextTextMapPropagator()
        self._trace: Any = trace

    def begin(self, scope: MutableMapping[str, Any], record: Record) -> None:
        """A request has come: its span begins, and is the one that others are told of."""
        if scope["method"] != "POST":
            return
        sent = {name: header(scope["headers"], name.encode())
                for name in ("traceparent", "tracestate")}  # fmt: skip
        parent = self._contexts.extract({name: value for name, value in sent.items() if value})
        kind = self._trace.SpanKind.SERVER
        record.span = self._tracer.start_span("POST", context=parent, kind=kind)
        told: dict[str, str] = {}
        self._contexts.inject(told, context=self._trace.set_span_in_context(record.span))
        # Where the SDK is turned off (OTEL_SDK_DISABLED) nothing is told: the client's own goes on.
        record.traceparent = told.get("traceparent", traceparent(scope))

    def end(self, scope: MutableMapping[str, Any], record: Record) -> None:
        """A request has ended, and its parts are known."""
        span = record.span
        if span is None:
            return
        if span.is_recording():
            span.update_name(f"POST {record.endpoint}")
            span.set_attributes(attributes(record))
            if record.status >= 500 or record.failed:
                span.set_status(self._trace.StatusCode.ERROR)
            context = self._trace.set_span_in_context(span)
            for name in ("encode", "constrain"):
                if name in record.spans:
                    self._part(name, *record.spans[name], context)
            for meter in record.meters:
                self._sequence(meter, record, context)
        span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _sequence(self, meter: Meter, record: Record, context: Any) -> None:
        last = meter.last_at or record.ended
        span = self._tracer.start_span("engine", context, start_time=_wall(meter.asked_at))
        span.set_attribute("gen_ai.usage.output_tokens", meter.tokens)
        within = self._trace.set_span_in_context(span)
        taken = meter.asked_at
        if meter.queued is not None:
            taken = min(taken + meter.queued, last)
            self._part("queue", meter.asked_at, taken, within)
        if meter.first_token_at:
            self._part("prefill", taken, meter.first_token_at, within)
            self._part("decode", meter.first_token_at, last, within)
        span.end(_wall(last))

    def _part(self, name: str, begin: float, end: float, context: Any) -> None:
        span = self._tracer.start_span(name, context, start_time=_wall(begin))
        span.end(_wall(max(begin, end)))


def attributes(record: Record) -> dict[str, Any]:
    """What a request's span says, by OpenTelemetry's conventions; no text of the request."""
    made: dict[str, Any] = {
        "http.request.method": "POST",
        "http.route": record.endpoint,
        "trellis.request_id": record.request_id,
    }
    if record.status:
        made["http.response.status_code"] = record.status
    if record.reason:
        made["error.type"] = record.reason
    if record.model and record.endpoint != OTHER:
        made["gen_ai.operation.name"] = OPERATIONS.get(record.endpoint, "text_completion")
        made["gen_ai.provider.name"] = "trellis"
        made["gen_ai.request.model"] = record.adapter or record.model
        made["gen_ai.usage.input_tokens"] = record.prompt_tokens
        made["gen_ai.usage.output_tokens"] = record.tokens
        if record.cached is not None:
            made["gen_ai.usage.cache_read.input_tokens"] = record.cached
        if record.finish_reason:
            reasons = [meter.finish or record.finish_reason for meter in record.meters]
            made["gen_ai.response.finish_reasons"] = reasons
        if record.first_at:
            first = record.first_at - record.started
            made["gen_ai.response.time_to_first_chunk"] = first
    return made


def _wall(moment: float) -> int:
    """A moment of time.monotonic in nanoseconds since 1970."""
    return time.time_ns() + int((moment - time.monotonic()) * 1e9)
