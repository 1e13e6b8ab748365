"""The short way: the gateway asks a Python engine by its step socket; all is as by Triton."""

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.asking import chat
from support.serving import serve_demo
from support.two_ways import floats, joined, two_ways
from support.waiting import wait_for
from trellis.gateway.counts import TELL_SECONDS
from trellis.server.process import Server

Ways = tuple[httpx.Client, httpx.Client]

PATH = "/v2/models/ensemble"
ASKED = {"max_tokens": 16, "text_input": chat("Say hello in Korean and name three emoji.")}
LONG = {"text_input": "Once", "max_tokens": 4000, "end_id": -1, "stream": True}
ALL = {
    "return_log_probs": True,
    "return_num_input_tokens": True,
    "return_num_output_tokens": True,
    "return_finish_reason": True,
}
# Requests that the gateway can send to the engine itself.
DIRECT: dict[str, dict[str, Any]] = {
    "plain": {},
    "log probabilities": {"return_log_probs": True},
    "one token": {"return_log_probs": True, "max_tokens": 1},
    "all that can be asked": {**ALL, "id": 'mine "7"'},
    "an id": {"id": "안녕"},
    "stop words": {"stop_words": ["!", "help"], "return_finish_reason": True},
    "a stop word at once": {**ALL, "stop_words": ["S"]},
    "bad words": {"bad_words": ["Sure"]},
    "a seed": {"temperature": 1.5, "top_p": 0.9, "seed": 7},
    "special tokens kept": {"skip_special_tokens": False, "max_tokens": 60},
    "special tokens left out": {"skip_special_tokens": True},
    "min_tokens": {"min_tokens": 20, "max_tokens": 24},
    "the prompt too": {"exclude_input_in_output": False},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5},
    "a long prompt": {"text_input": "word " * 400, "max_tokens": 4},
    "a text in a list": {"text_input": ["안녕 🙂"]},
}
# Others, and those that are refused, by whomever.
OTHERS: dict[str, dict[str, Any]] = {
    "two sequences": {"num_return_sequences": 2, "temperature": 0.7, "seed": 3},
    "beams": {"beam_width": 2},
    "no text": {"text_input": ""},
    "a type": {"max_tokens": "x"},
    "too many tokens": {"max_tokens": 1_000_000},
    "more than the context": {"max_tokens": 8192},
    "an end_id outside": {"end_id": 1_000_000},
    "a stop id outside": {"stop_token_ids": [999_999_999]},
    "no tokens": {"max_tokens": 0},
    "a temperature": {"temperature": -1.0},
    "an input that nobody has": {"no_such_input": 1},
    "many stop words": {"stop_words": ["x"] * 100},
    "a penalty": {"length_penalty": 2.0},
}


@pytest.fixture(scope="module")
def ways(server: Server) -> Iterator[Ways]:
    with both(server) as clients:
        yield clients


@contextlib.contextmanager
def both(server: Server) -> Iterator[Ways]:
    """Both ways to one server."""
    command = server.process.args
    assert isinstance(command, list)
    repo = str(server.settings.model_repo.resolve())
    with two_ways([str(word) for word in command], server.process.pid, repo) as clients:
        yield clients


def answers(ways: Ways, verb: str, body: dict[str, Any]) -> list[tuple[int, str, Any]]:
    """Status, type and JSON by both ways."""
    made = []
    for client in ways:
        response = client.post(f"{PATH}/{verb}", json=body)
        kind = response.headers["content-type"]
        made.append((response.status_code, kind, joined(response.text)))
    return made


@pytest.mark.promise("one answer")
@pytest.mark.parametrize("name", [*DIRECT, *OTHERS])
def test_each_kind_of_request_is_answered_alike(ways: Ways, name: str) -> None:
    more = {**DIRECT, **OTHERS}[name]
    for verb, stream in (
        ("generate", False),
        ("generate", True),
        ("generate_stream", False),
        ("generate_stream", True),
    ):
        short, triton = answers(ways, verb, ASKED | more | {"stream": stream})
        assert short == triton, (verb, stream)
        if name in DIRECT and (verb, stream) != ("generate", True):
            assert short[0] == 200
            assert "text_output" in short[2]


def test_infer_is_answered_alike(ways: Ways) -> None:
    def inputs(max_tokens: int) -> dict[str, Any]:
        return {
            "id": "x",
            "inputs": [
                {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["Hello"]},
                {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [max_tokens]},
                {"name": "return_log_probs", "shape": [1, 1], "datatype": "BOOL", "data": [True]},
            ],
        }

    for tokens, status in ((6, 200), (0, 400)):
        responses = [client.post(f"{PATH}/infer", json=inputs(tokens)) for client in ways]
        assert [response.status_code for response in responses] == [status, status]
        short, triton = (response.json() for response in responses)
        for answer in (short, triton):
            for output in answer.get("outputs", ()):
                if output["name"].endswith("log_probs"):
                    output["data"] = floats(output["data"]).tolist()
        assert short == triton


def figure(server: Server, name: str, model: str = "") -> float:
    """A number of the metrics page."""
    page = httpx.get(f"http://127.0.0.1:{server.settings.metrics_port}/metrics").text
    lines = [line for line in page.splitlines() if line.startswith(name)]
    label = f'model="{model}"' if model else ""
    return sum(float(line.split()[-1]) for line in lines if label in line)


def test_what_goes_past_triton_is_counted_for_every_model_that_it_goes_past(
    server: Server, ways: Ways
) -> None:
    def counts() -> list[float]:
        return [
            figure(server, name, model)
            for name in ("trellis_http_requests_total", "nv_inference_request_success")
            for model in ("ensemble", "tensorrt_llm")
        ]

    time.sleep(2 * TELL_SECONDS)  # what others asked is told, and on Triton's page
    before = counts()
    for name in DIRECT:
        answer = ways[0].post(f"{PATH}/generate", json=ASKED | DIRECT[name])
        assert answer.status_code == 200, name
    ways[0].post(f"{PATH}/generate", json=ASKED | {"max_tokens": 0})  # no success
    wait_for(lambda: counts()[:2] == [before[0] + len(DIRECT), before[1] + len(DIRECT)])
    assert counts()[2:] == before[2:], "Triton was asked"
    for name in ("two sequences", "beams"):
        ways[0].post(f"{PATH}/generate", json=ASKED | OTHERS[name])
    assert counts()[3] == before[3] + 2


def test_a_client_that_hangs_up_ends_its_request(server: Server, ways: Ways) -> None:
    for client in ways:
        cancelled = figure(server, "trellis_requests_cancelled_total")
        with client.stream("POST", f"{PATH}/generate_stream", json=LONG) as response:
            lines = response.iter_lines()  # kept: httpx closes the stream with it
            next(lines)
            wait_for(lambda: figure(server, "trellis_requests_in_flight") == 1)
        wait_for(lambda: figure(server, "trellis_requests_in_flight") == 0)
        assert figure(server, "trellis_requests_cancelled_total") == cancelled + 1


def test_a_request_is_stopped_by_its_id(ways: Ways) -> None:
    key = {"Trellis-Stop-Key": "nobody can guess this"}
    ends = []
    for client in ways:
        asked = LONG | {"id": "7", "return_finish_reason": True}
        url = f"{PATH}/generate_stream"
        with client.stream("POST", url, json=asked, headers=key) as response:
            lines = response.iter_lines()
            next(lines)
            stop = {"text_input": "", "max_tokens": 1, "stop": True, "id": "7"}
            assert client.post(f"{PATH}/generate", json=stop, headers=key).status_code == 200
            ends.append(json.loads([line for line in lines if line][-1].removeprefix("data: ")))
    assert [end["finish_reason"] for end in ends] == ["cancelled", "cancelled"]


def test_streams_side_by_side_have_their_own_text(ways: Ways) -> None:
    things = ["apple", "river", "stone", "paper", "cloud", "horse", "table", "glass"] * 4

    def text(thing: str) -> str:
        """The model goes on with a line that is repeated."""
        line = f"I have a {thing}.\n"
        body = {"text_input": line * 8, "max_tokens": 8, "end_id": -1, "stop_words": ["\n"]}
        response = ways[0].post(f"{PATH}/generate_stream", json=body | {"stream": True})
        lines = [line for line in response.text.splitlines() if line]
        return "".join(json.loads(line.removeprefix("data: "))["text_output"] for line in lines)

    with ThreadPoolExecutor(len(things)) as pool:
        assert list(pool.map(text, things)) == [f"I have a {thing}." for thing in things]


@pytest.mark.slow
def test_overload_is_told_alike(demo_engine: tuple[Path, Path], tmp_path: Path) -> None:
    settings = {
        "triton_max_batch_size": "1",
        "max_queue_size": "1",
        "queue_timeout_microseconds": "1500000",
    }
    with (
        serve_demo(demo_engine, tmp_path, settings) as small,
        both(small) as ways,
        ThreadPoolExecutor() as pool,
    ):
        for client in ways:
            with client.stream("POST", f"{PATH}/generate_stream", json=LONG) as running:
                lines = running.iter_lines()
                next(lines)
                waits = pool.submit(client.post, f"{PATH}/generate", json=ASKED)
                time.sleep(0.5)
                for verb in ("generate", "generate_stream"):
                    refused = client.post(f"{PATH}/{verb}", json=ASKED)
                    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                    assert "max_queue_size: 1" in refused.text
                late = waits.result()
                assert late.status_code == 503
                assert "waited 1.5 s without a place" in late.text
