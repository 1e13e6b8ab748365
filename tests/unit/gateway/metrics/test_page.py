"""The metrics port of a gateway process, beside a Triton that a test decides."""

import asyncio
import os
from collections import defaultdict

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.parser import text_string_to_metric_families

from support.fake_triton_http import FakeTriton
from support.gateway_process import gateway
from support.gateway_wire import ENSEMBLE, Wire, post
from trellis.gateway.metrics.page import Figures, add_families, read_families, written
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.refusals import Refusal
from trellis.gateway.triton import TritonLost
from trellis.gateway.worker_mesh import WorkerLost
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


LABELS = st.tuples(st.sampled_from(["a", 'b"\\\n']), st.sampled_from(["x", "한국"]))


@given(st.lists(st.lists(st.tuples(LABELS, st.integers(1, 9))), min_size=1, max_size=4))
def test_the_figures_of_workers_add_up_by_their_labels(
    workers: list[list[tuple[tuple[str, str], int]]],
) -> None:
    families = []
    for counted in workers:
        registry = CollectorRegistry()
        counter = Counter("requests", "Some.", ("model", "adapter"), registry=registry)
        times = Histogram("seconds", "Some.", ("model",), buckets=(0.001, 4), registry=registry)
        for labels, number in counted:
            counter.labels(*labels).inc(number)
            times.labels(labels[0]).observe(number)
        families.append(list(registry.collect()))
    total, *others = families
    for other in others:
        add_families(total, read_families(written(other)))
    found = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in total
        for sample in family.samples
        if sample.name in ("requests_total", "seconds_sum", "seconds_count", "seconds_bucket")
    }
    every = [each for counted in workers for each in counted]
    expected: dict[tuple[str, ...], float] = defaultdict(float)
    for (model, adapter), number in every:
        expected["requests_total", adapter, model] += number
        expected["seconds_sum", model] += number
        expected["seconds_count", model] += 1
        for bound in (0.001, 4.0):
            expected["seconds_bucket", str(bound), model] += number <= bound
        expected["seconds_bucket", "+Inf", model] += 1
    assert found == expected


def test_the_page_is_refused_where_a_worker_does_not_tell() -> None:
    class Triton:
        async def ask(self, *_: object) -> object:
            raise TritonLost("not there")

    async def lost() -> list[list[str]]:
        raise WorkerLost("worker 2 does not answer")

    figures = Figures(Registry(), Triton(), (), lost)  # type: ignore[arg-type]
    with pytest.raises(Refusal, match="worker 2 does not answer") as refused:
        asyncio.run(figures.text())
    assert refused.value.status == 503
