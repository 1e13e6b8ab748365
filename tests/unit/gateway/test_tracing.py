"""What becomes of a client's trace where the gateway makes no spans."""

import os
import subprocess
import sys

import pytest

from support.fake_triton_http import FakeTriton
from support.gateway_process import gateway
from support.gateway_wire import ENSEMBLE, Wire, post, wait_for
from support.paths import ROOT
from trellis.errors import TrellisError
from trellis.gateway.metrics.record import Record
from trellis.gateway.tracing import Tracing, attributes, traceparent

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
    with pytest.raises(TrellisError, match=r"trellis-llm\[otel\]"):
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
