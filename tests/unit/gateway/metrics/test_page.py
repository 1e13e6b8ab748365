"""The metrics port of a gateway process, beside a Triton that a test decides."""

import os

import httpx
from prometheus_client.parser import text_string_to_metric_families

from support.fake_triton_http import FakeTriton
from support.gateway_process import gateway
from support.gateway_wire import ENSEMBLE, Wire, post
from trellis.server.ports import free_ports


def test_what_is_refused_before_it_is_a_request_is_counted_too() -> None:
    (port,) = free_ports(1)
    with FakeTriton() as triton, gateway(triton.port, os.getpid(), metrics_port=port) as running:
        for bad in (b"NO HTTP\r\n\r\n", b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
            with Wire(running.port) as wire:
                wire.send(bad).answer()
        triton.error = "out of order"
        with Wire(running.port) as wire:
            wire.send(post({"text_input": "x"}, target=f"{ENSEMBLE}/generate")).answer()
        page = httpx.get(f"http://127.0.0.1:{port}/metrics")
        elsewhere = httpx.get(f"http://127.0.0.1:{port}/v2/health/live")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert elsewhere.status_code == 404
    found = {
        (sample.labels["model"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
        if sample.name == "trellis_rejections_total"
    }
    assert found == {
        ("", "invalid_request"): 1,
        ("", "too_large"): 1,
        ("ensemble", "invalid_request"): 1,
    }
