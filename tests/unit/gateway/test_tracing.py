"""What becomes of a client's trace where the gateway makes no spans."""

import os
import subprocess
import sys

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_process import gateway
from support.gateway_wire import ENSEMBLE, Wire, post, wait_for
from support.otlp_receiver import Receiver
from support.otlp_receiver import attributes as attributes_of
from support.paths import ROOT
from trellis.errors import TrellisError
from trellis.gateway.metrics.meter import Meter
from trellis.gateway.metrics.record import Record
from trellis.gateway.tracing import Tracing, attributes, traceparent

WHY = "needs OpenTelemetry: pip install -e '.[otel]'"
SENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("sent", ["", "x", SENT + "\n", SENT.upper(), SENT + "-00", "00" + SENT])
def test_what_is_no_traceparent_is_not_passed_on(sent: str) -> None:
    assert traceparent({"headers": [(b"traceparent", sent.encode())]}) == ""
    assert traceparent({"headers": [(b"traceparent", SENT.encode())]}) == SENT


def test_triton_is_told_the_clients_trace() -> None:
    with FakeTriton() as triton, gateway(triton.port, os.getpid()) as running:
        triton.error = "enough"
        asked = post({"text_input": "x"}, target=f"{ENSEMBLE}/generate")
        line = f"traceparent: {SENT}\r\n".encode()
        with Wire(running.port) as wire:
            wire.send(asked.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n", 1)).answer()
        wait_for(lambda: any(each.body for each in triton.requests))
        (headers,) = (dict(each.headers) for each in triton.requests if each.body)
    assert headers["traceparent"] == SENT


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(TrellisError, match=r"pip install opentelemetry-sdk"):
        Tracing("http://127.0.0.1:4318")


def test_the_launcher_names_an_endpoint_that_is_no_url() -> None:
    launcher = [sys.executable, str(ROOT / "tools" / "launch_triton_server.py")]
    command = [*launcher, "--model_repo", str(ROOT), "--otlp-endpoint", "collector:4318"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "send it as http://host:4318" in done.stderr


def test_a_request_without_a_model_has_no_figures_of_one() -> None:
    record = Record("1f")
    record.status, record.reason = 404, "not_found"
    assert attributes(record) == {
        "http.request.method": "POST",
        "http.route": "other",
        "http.response.status_code": 404,
        "error.type": "not_found",
        "trellis.request_id": "1f",
    }


def test_a_records_times_become_spans() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=WHY)
    record = Record("1f")
    scope = {"method": "POST", "headers": [(b"traceparent", SENT.encode())]}
    with Receiver() as receiver:
        tracing = Tracing(receiver.url)
        tracing.begin(scope, record)
        assert record.traceparent.split("-")[1] == SENT.split("-")[1]
        assert record.traceparent != SENT, "whoever is asked is a child of the request's own span"
        with record.timed("encode"):
            pass
        record.model, record.endpoint, record.status = "m", "/v1/completions", 200
        meter = Meter()
        meter.chunk(2, meter.asked_at + 0.5)
        meter.chunk(1, meter.asked_at + 0.75)
        meter.ended(["stop", 1, 0.25, 0.0])
        record.meters.append(meter)
        record.end()
        tracing.end(scope, record)
        tracing.close()
    spans = {span.name: span for span in receiver.spans}
    root = spans["POST /v1/completions"]
    assert attributes_of(root)["gen_ai.usage.cache_read.input_tokens"] == 1
    for name, seconds in (("queue", 0.25), ("prefill", 0.25), ("decode", 0.25), ("engine", 0.75)):
        took = spans[name].end_time_unix_nano - spans[name].start_time_unix_nano
        assert took / 1e9 == pytest.approx(seconds, abs=0.05), name
    assert spans["encode"].parent_span_id == root.span_id


def test_the_clients_trace_goes_on_where_the_sdk_is_turned_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=WHY)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with Receiver() as receiver:
        tracing = Tracing(receiver.url)
        for headers, told in (([(b"traceparent", SENT.encode())], SENT), ([], "")):
            record, scope = Record("1f"), {"method": "POST", "headers": headers}
            tracing.begin(scope, record)
            tracing.end(scope, record)
            assert record.traceparent == told
        tracing.close()
    assert receiver.spans == []


def test_a_get_has_no_span() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=WHY)
    record, scope = Record(), {"method": "GET", "headers": []}
    with Receiver() as receiver:
        tracing = Tracing(receiver.url)
        tracing.begin(scope, record)
        tracing.end(scope, record)
        tracing.close()
    assert receiver.spans == []
