"""What requests add to the figures, without a server."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from trellis.contract.metrics import INTER_TOKEN, METRICS
from trellis.gateway.metrics.aliases import aliases
from trellis.gateway.metrics.meter import Meter, bucket_of, new_gaps
from trellis.gateway.metrics.observed import Observed
from trellis.gateway.metrics.page import Figures, written
from trellis.gateway.metrics.record import RECORD, Record
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.refusals import Refusal
from trellis.gateway.triton import Reply, TritonLost

LABELS = {"model": "m", "adapter": ""}


def figures(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(written(registry.collect()))
        for sample in family.samples
    }


def figure(registry: Registry, name: str, **labels: str) -> float:
    return sum(
        value
        for (found, pairs), value in figures(registry).items()
        if found == name and labels.items() <= set(pairs)
    )


def begun(registry: Registry, prompt: int = 3, adapter: str = "") -> Record:
    record = Record()
    registry.begin(record)
    record.model, record.adapter, record.prompt_tokens = "m", adapter, prompt
    return record


def end(registry: Registry, record: Record, status: int = 200) -> None:
    record.status, record.ended = status, record.started + 9
    registry.end(record)


def test_a_gap_is_in_the_bucket_that_prometheus_has_it_in() -> None:
    assert bucket_of(INTER_TOKEN[0]) == 0, "a bound is in its bucket"
    assert bucket_of(INTER_TOKEN[0] + 1e-9) == 1
    assert bucket_of(1e9) == len(INTER_TOKEN) == len(new_gaps()) - 1


def test_what_is_flushed_while_a_request_runs_counts_once() -> None:
    registry = Registry()
    record = begun(registry)
    meter = registry.meter(record)
    assert figure(registry, "trellis_prompt_tokens_total") == 0, "no token came"
    for now in (10.0, 10.02, 10.06):
        meter.chunk(2, now)
        figures(registry)
    assert figure(registry, "trellis_generation_tokens_total", **LABELS) == 6
    assert figure(registry, "trellis_http_requests_in_flight", model="m") == 1
    end(registry, record)
    assert figure(registry, "trellis_generation_tokens_total", **LABELS) == 6
    assert figure(registry, "trellis_prompt_tokens_total", **LABELS) == 3
    gaps = "trellis_inter_token_latency_seconds"
    assert figure(registry, f"{gaps}_count", **LABELS) == 2
    assert figure(registry, f"{gaps}_sum", **LABELS) == pytest.approx(0.06)
    assert figure(registry, f"{gaps}_bucket", le="0.025", **LABELS) == 1
    assert figure(registry, f"{gaps}_bucket", le="0.05", **LABELS) == 2
    assert figure(registry, "trellis_http_requests_in_flight", model="m") == 0


def test_a_whole_answer_has_the_time_of_its_first_token() -> None:
    registry = Registry()
    record = begun(registry)
    meter = registry.meter(record)
    meter.chunk(5, record.started + 3)
    meter.ended(["stop", 2, 0.5, 2.0])
    end(registry, record)
    assert figure(registry, "trellis_time_to_first_token_seconds_sum") == pytest.approx(1.0)
    per_token = figure(registry, "trellis_request_time_per_output_token_seconds_sum")
    assert per_token == pytest.approx(0.5)
    assert figure(registry, "trellis_request_queue_time_seconds_sum") == 0.5
    assert figure(registry, "trellis_prompt_tokens_cached_total") == 2
    assert figure(registry, "trellis_inter_token_latency_seconds_count") == 0
    reason = {"status": "200", "finish_reason": "stop"}
    assert figure(registry, "trellis_requests_total", **reason, **LABELS) == 1


def test_adapters_are_series_of_their_own() -> None:
    registry = Registry()
    for adapter, tokens in (("", 1), ("a", 2)):
        record = begun(registry, adapter=adapter)
        registry.meter(record).chunk(tokens, 1.0)
        end(registry, record)
    made = "trellis_generation_tokens_total"
    assert figure(registry, made, adapter="a") == 2
    assert figure(registry, made) == 3


def test_an_answer_without_tokens_counts_its_prompts() -> None:
    registry = Registry()
    record = begun(registry, prompt=7)
    end(registry, record)
    assert figure(registry, "trellis_prompt_tokens_total", **LABELS) == 7
    assert figure(registry, "trellis_e2e_request_latency_seconds_count", **LABELS) == 1
    assert figure(registry, "trellis_time_to_first_token_seconds_count") == 0


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (Refusal(503, "wait"), "unavailable"),
        (Refusal(429, "later"), "rate_limit"),
        (Refusal(418, "tea"), "other"),
        (OpenAIError(400, "x", code="context_length_exceeded"), "context_length_exceeded"),
    ],
)
def test_a_rejection_has_a_reason(refusal: Refusal, reason: str) -> None:
    registry = Registry()
    record = Record()
    record.reject(refusal)
    end(registry, record, refusal.status)
    assert figure(registry, "trellis_rejections_total", reason=reason, model="") == 1
    assert figure(registry, "trellis_requests_total", status=str(refusal.status)) == 1


def test_a_server_that_is_not_ready_rejects_nobody() -> None:
    registry = Registry()
    record = Record()
    record.probes = True
    record.reject(Refusal(503, "wait"))
    end(registry, record, 503)
    assert figure(registry, "trellis_rejections_total") == 0
    assert figure(registry, "trellis_requests_total", status="503", endpoint="other") == 1


def test_vllms_success_sums_endpoints_and_leaves_out_errors() -> None:
    registry = Registry()
    for endpoint, finish in (("/a", "stop"), ("/b", "tool_calls"), ("/a", "length")):
        record = begun(registry)
        record.endpoint = endpoint
        meter = registry.meter(record)
        meter.chunk(1, 1.0)
        meter.finish = finish
        end(registry, record)
    end(registry, begun(registry), status=400)
    (success,) = [
        family
        for family in aliases(registry.collect(), ["vllm"])
        if family.name == "vllm:request_success"
    ]
    found = {sample.labels["finished_reason"]: sample.value for sample in success.samples}
    assert found == {"stop": 2, "length": 1}
    assert success.samples[0].labels["model_name"] == "m"


def test_every_family_of_the_gateway_is_on_the_page() -> None:
    families = {family.name for family in Registry().collect()}
    gateways = {m.name.removesuffix("_total") for m in METRICS if m.where == "gateway"}
    assert families == gateways


def test_a_page_without_triton_has_ours() -> None:
    class Lost:
        async def ask(self, *_: Any) -> Reply:
            raise TritonLost("gone")

    page = asyncio.run(Figures(Registry(), cast(Any, Lost()), ["vllm"]).text())
    assert "trellis_requests_total" in page


def test_what_triton_shows_under_a_name_is_not_shown_twice() -> None:
    theirs = (
        "# HELP nv_trt_llm_request_metrics x\n# TYPE nv_trt_llm_request_metrics gauge\n"
        'nv_trt_llm_request_metrics{request_type="active"} 4\n'
        "# HELP trellis_num_requests_running x\n# TYPE trellis_num_requests_running gauge\n"
        'trellis_num_requests_running{model="m"} 4\n'
    )

    class Triton:
        async def ask(self, *_: Any) -> Reply:
            return Reply(200, b"text/plain", theirs.encode())

    page = asyncio.run(Figures(Registry(), cast(Any, Triton()), ["nvidia", "vllm"]).text())
    assert page.count("# TYPE nv_trt_llm_request_metrics ") == 1
    assert 'vllm:num_requests_running{engine="0",model_name="m"} 4.0' in page


def test_a_request_whose_application_raises_is_counted() -> None:
    registry = Registry()
    seen: list[Record] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert isinstance(scope[RECORD], Record)
        await send({"type": "http.response.start", "status": 207})
        raise RuntimeError

    async def send(message: Any) -> None: ...

    ended = (lambda _, record: seen.append(record),)
    observed = Observed(app, registry, lambda *_: None, ended)
    scope = {"type": "http"}
    with pytest.raises(RuntimeError):
        asyncio.run(observed(scope, cast(Any, SimpleNamespace()), send))
    (record,) = seen
    assert record.status == 207
    assert figure(registry, "trellis_requests_total", status="207") == 1


def test_a_meter_alone_counts() -> None:
    meter = Meter()
    meter.chunk(1)
    meter.chunk(1)
    assert (meter.tokens, sum(meter.gaps)) == (2, 1)
