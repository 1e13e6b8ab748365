"""The page at the metrics port of a real server: Triton's figures and ours, under every name."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from support.serving import serve
from support.waiting import wait_for
from trellis.contract.metrics import METRICS, NAMES
from trellis.server.process import Server

CHAT = {"messages": [{"role": "user", "content": "Count to five."}], "max_tokens": 8, "seed": 1}
CHATS = "/v1/chat/completions"
GENERATE = "/v2/models/ensemble/generate"
MINE = {"model": "ensemble", "adapter": ""}


@pytest.fixture(scope="module")
def named(demo_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose page has all names."""
    folder = tmp_path_factory.mktemp("metrics")
    with serve(demo_repo, folder, metrics_names=NAMES) as running:
        yield running


@pytest.fixture(scope="module")
def client(named: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=named.settings.url, timeout=120) as made:
        yield made


def page(server: Server) -> str:
    response = httpx.get(f"http://127.0.0.1:{server.settings.metrics_port}/metrics", timeout=30)
    assert response.status_code == 200
    return response.text


def samples(server: Server) -> list[Sample]:
    return [s for family in text_string_to_metric_families(page(server)) for s in family.samples]


def figure(server: Server, name: str, **labels: str) -> float:
    """The sum of the samples of that name which have these labels."""
    found = [s for s in samples(server) if s.name == name and labels.items() <= s.labels.items()]
    return sum(sample.value for sample in found)


def ask(client: httpx.Client, **more: Any) -> dict[str, Any]:
    response = client.post(CHATS, json={"model": "ensemble", **CHAT, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.fixture(scope="module")
def usage(client: httpx.Client) -> dict[str, int]:
    """Of a chat, and a request of Triton's own form, both answered."""
    chat = ask(client, ignore_eos=True)
    body = {"text_input": "One, two,", "max_tokens": 4, "seed": 1, "end_id": -1}
    assert client.post(GENERATE, json=body).status_code == 200
    made: dict[str, int] = chat["usage"]
    return made


def test_one_page_has_tritons_figures_and_ours(named: Server, usage: dict[str, int]) -> None:
    text = page(named)
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(families) == len(set(families))
    assert {"nv_inference_request_success", "trellis_requests_total"} <= set(families)
    assert "trellis_kv_cache_usage_perc" in families


def test_a_request_is_in_every_figure(named: Server, usage: dict[str, int]) -> None:
    prompt = figure(named, "trellis_prompt_tokens_total", **MINE)
    made = figure(named, "trellis_generation_tokens_total", **MINE)
    assert made == usage["completion_tokens"] + 4
    assert prompt > usage["prompt_tokens"]
    assert figure(named, "trellis_request_prompt_tokens_sum", **MINE) == prompt
    ended = {"status": "200", "finish_reason": "length"}
    for endpoint in (CHATS, "/generate"):
        assert figure(named, "trellis_requests_total", endpoint=endpoint, **ended, **MINE) == 1
    for name in (
        "time_to_first_token", "e2e_request_latency", "request_queue_time", "tokenize_time",
        "request_time_per_output_token",
    ):  # fmt: skip
        assert figure(named, f"trellis_{name}_seconds_count", **MINE) == 2, name
        assert figure(named, f"trellis_{name}_seconds_sum", **MINE) > 0, name
    assert figure(named, "trellis_detokenize_seconds_total", model="ensemble") > 0
    wait_for(lambda: figure(named, "trellis_engine_steps_total", model="ensemble") >= 8)
    wait_for(lambda: figure(named, "trellis_num_requests_running") == 0)


def test_a_stream_is_counted_while_it_runs(named: Server, client: httpx.Client) -> None:
    gaps = "trellis_inter_token_latency_seconds"
    before = figure(named, "trellis_generation_tokens_total"), figure(named, f"{gaps}_count")
    body = {"model": "ensemble", **CHAT, "max_tokens": 400, "ignore_eos": True, "stream": True}
    with client.stream("POST", CHATS, json=body) as response:
        lines = response.iter_lines()
        for _ in range(40):
            next(lines)
        assert figure(named, "trellis_generation_tokens_total") > before[0]
        assert figure(named, "trellis_http_requests_in_flight", model="ensemble") == 1
        wait_for(lambda: figure(named, "trellis_num_requests_running", model="ensemble") == 1)
        wait_for(lambda: figure(named, "trellis_kv_cache_usage_perc", model="ensemble") > 0)
    wait_for(lambda: figure(named, "trellis_disconnects_total", **MINE) == 1)
    assert figure(named, "trellis_requests_total", finish_reason="disconnected", **MINE) == 1
    counted = figure(named, f"{gaps}_count") - before[1]
    assert counted >= 8
    assert figure(named, f"{gaps}_bucket", le="+Inf") == figure(named, f"{gaps}_count")
    assert figure(named, f"{gaps}_sum") > 0
    assert figure(named, "trellis_http_requests_in_flight", model="ensemble") == 0
    wait_for(lambda: figure(named, "trellis_kv_cache_usage_perc", model="ensemble") == 0)


def test_what_a_client_makes_up_is_no_label(named: Server, client: httpx.Client) -> None:
    for number in range(5):
        made_up = f"made-up-{number}"
        assert client.post(CHATS, json={**CHAT, "model": made_up}).status_code == 404
        assert client.post(f"/v2/models/{made_up}/generate", json={}).status_code == 404
        assert client.get(f"/{made_up}").status_code == 404
        body = {"text_input": "x", "lora_name": made_up}
        assert client.post(GENERATE, json=body).status_code == 400
    bad = client.post(CHATS, json={"model": "ensemble", **CHAT, "temperature": -1})
    assert bad.status_code == 400
    text = page(named)
    assert "made-up" not in text
    rejected = "trellis_rejections_total"
    assert figure(named, rejected, model="", reason="not_found") >= 15
    assert figure(named, rejected, model="ensemble", reason="invalid_request") == 5
    assert figure(named, rejected, model="", reason="invalid_request") == 1


def test_a_prompt_that_does_not_fit_is_a_reason_of_its_own(
    named: Server, client: httpx.Client
) -> None:
    long = [{"role": "user", "content": "word " * 20_000}]
    assert client.post(CHATS, json={"model": "ensemble", "messages": long}).status_code == 400
    reason = "context_length_exceeded"
    assert figure(named, "trellis_rejections_total", model="ensemble", reason=reason) == 1


def test_constraints_say_what_they_took(named: Server, client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert "a" in json.loads(
        ask(client, response_format=form, max_tokens=40)["choices"][0]["message"]["content"]
    )
    assert figure(named, "trellis_constraint_plan_time_seconds_count", **MINE) == 1
    wait_for(lambda: figure(named, "trellis_constraints_compiled_total", model="ensemble") == 1)
    assert figure(named, "trellis_constraint_compile_seconds_total", model="ensemble") > 0


def test_others_dashboards_find_their_names(named: Server, usage: dict[str, int]) -> None:
    theirs = {"model_name": "ensemble", "engine": "0"}
    made = figure(named, "trellis_generation_tokens_total", **MINE)
    assert figure(named, "vllm:generation_tokens_total", **theirs) == made > 0
    for part in ("count", "sum"):
        ours = figure(named, f"trellis_time_to_first_token_seconds_{part}")
        assert figure(named, f"vllm:time_to_first_token_seconds_{part}", **theirs) == ours > 0
        otel = f"gen_ai_server_time_to_first_token_seconds_{part}"
        assert figure(named, otel, gen_ai_request_model="ensemble") == ours
    success = figure(named, "vllm:request_success_total", finished_reason="length", **theirs)
    assert success == figure(named, "trellis_requests_total", finish_reason="length") > 0
    assert {"vllm:num_requests_running", "vllm:kv_cache_usage_perc"} <= {
        sample.name for sample in samples(named)
    }
    engine = {"model": "tensorrt_llm", "version": "1"}
    lengths = figure(named, "nv_llm_output_token_len_sum", **engine,
                     response_metric_type="total_output_tokens")  # fmt: skip
    assert lengths == figure(named, "trellis_request_generation_tokens_sum") > 0
    kinds = {s.labels["request_type"] for s in samples(named)
             if s.name == "nv_trt_llm_request_metrics"}  # fmt: skip
    assert kinds == {"active", "waiting"}


def test_the_port_has_the_page_alone(named: Server, client: httpx.Client) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{named.settings.metrics_port}") as port:
        assert port.get("/v2/health/ready").status_code == 404
        assert port.post("/metrics", json={}).status_code == 405
    assert client.get("/metrics").status_code == 404


def test_promtool_has_nothing_to_say_of_ours(named: Server, usage: dict[str, int]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool: sudo apt-get install -y prometheus")
    ours = [line for line in page(named).splitlines() if "trellis_" in line]
    assert len(ours) > 100
    done = subprocess.run(
        [promtool, "check", "metrics"], input="\n".join(ours) + "\n", capture_output=True, text=True
    )
    assert (done.stdout + done.stderr, done.returncode) == ("", 0)


def test_every_metric_has_a_name_of_its_own() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name


def test_without_a_gateway_triton_serves_its_page_itself(demo_repo: Path, tmp_path: Path) -> None:
    with serve(demo_repo, tmp_path, http_gateway=False) as server:
        found = {sample.name for sample in samples(server)}
    assert "trellis_num_requests_waiting" in found
    assert "trellis_requests_total" not in found
