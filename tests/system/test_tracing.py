"""Spans of a real server, sent to a receiver of the tests."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.otlp_receiver import Receiver, attributes
from support.serving import serve
from support.waiting import wait_for

WHY = "needs OpenTelemetry: pip install -e '.[otel]'"
pytest.importorskip("opentelemetry.sdk", reason=WHY)
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=WHY)

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CHATS = "/v1/chat/completions"
SECRET = "the secret prompt"
BODY = {"model": "ensemble", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 8}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture(scope="module")
def client(
    receiver: Receiver, demo_repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("tracing")
    with (
        serve(demo_repo, folder, otlp_endpoint=receiver.url) as server,
        httpx.Client(base_url=server.settings.url, timeout=120) as made,
    ):
        yield made


def traced(receiver: Receiver, trace: str, count: int) -> list[Any]:
    """The spans of a trace, once so many are there."""
    wait_for(lambda: len(receiver.trace(trace)) >= count)
    found = receiver.trace(trace)
    assert len(found) == count, [span.name for span in found]
    return found


def test_a_request_is_a_tree_under_the_span_that_its_client_names(
    receiver: Receiver, client: httpx.Client
) -> None:
    begin = time.time_ns()
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {**BODY, "ignore_eos": True, "stream": True}
    response = client.post(CHATS, json=body, headers=headers)
    assert response.status_code == 200
    end = time.time_ns()
    spans = {span.name: span for span in traced(receiver, TRACE, 6)}
    root = spans[f"POST {CHATS}"]
    assert root.parent_span_id.hex() == PARENT
    parents = {"encode": root, "engine": root}
    parents |= dict.fromkeys(("queue", "prefill", "decode"), spans["engine"])
    for name, parent in parents.items():
        assert spans[name].parent_span_id == parent.span_id, name
    slack = 50_000_000  # two clocks are read for each time
    for span in spans.values():
        assert begin - slack <= span.start_time_unix_nano <= span.end_time_unix_nano <= end + slack
    order = ["encode", "queue", "prefill", "decode"]
    ends = [spans[name].end_time_unix_nano for name in order]
    assert ends == sorted(ends)
    assert receiver.services == {"trellis"}
    assert receiver.paths == {"/v1/traces"}


def test_a_span_says_sizes_and_no_text(receiver: Receiver, client: httpx.Client) -> None:
    trace = "0" * 31 + "7"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    usage = client.post(CHATS, json={**BODY, "n": 2}, headers=headers).json()["usage"]
    spans = traced(receiver, trace, 2 + 2 * 4)
    (root,) = (span for span in spans if span.name.startswith("POST"))
    said = attributes(root)
    assert said["gen_ai.request.model"] == "ensemble"
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert len(said["gen_ai.response.finish_reasons"]) == 2
    assert said["http.response.status_code"] == 200
    assert SECRET not in str(spans)


def test_a_rejected_request_says_why(receiver: Receiver, client: httpx.Client) -> None:
    trace = "0" * 31 + "8"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    bad = client.post(CHATS, json={**BODY, "temperature": -1}, headers=headers)
    assert bad.status_code == 400
    (span,) = traced(receiver, trace, 1)
    said = attributes(span)
    assert (said["http.response.status_code"], said["error.type"]) == (400, "invalid_request")


def test_what_a_client_does_not_sample_is_not_sent(
    receiver: Receiver, client: httpx.Client
) -> None:
    unsampled, sampled = "0" * 31 + "9", "0" * 31 + "a"
    for trace, flags in ((unsampled, "00"), (sampled, "01")):
        headers = {"traceparent": f"00-{trace}-{PARENT}-{flags}"}
        assert client.post("/tokenize", json={"model": "ensemble", "prompt": "x"},
                           headers=headers).status_code == 200  # fmt: skip
    traced(receiver, sampled, 1)
    assert receiver.trace(unsampled) == []


def test_asking_whether_it_is_there_is_no_span(receiver: Receiver, client: httpx.Client) -> None:
    before = len(receiver.spans)
    trace = "0" * 31 + "b"
    headers = {"traceparent": f"00-{trace}-{PARENT}-01"}
    assert client.get("/v2/health/ready", headers=headers).status_code == 200
    time.sleep(6)  # the SDK sends every five seconds
    assert len(receiver.spans) == before
