"""Clients that leave, cancel or stop: their requests end, and nothing else does."""

import json
import os
import queue
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.asking import ask, refused, tensor
from support.probes import add_probes, settled, state
from support.serving import assemble_demo, serve
from system.test_grpc import client_of
from trellis.grpc_client import generate, request_inputs
from trellis.ipc.disconnect_sender import PARAMETER, DisconnectSender
from trellis.server.process import Server

LONG = {"max_tokens": 6000, "end_id": -1}
ENSEMBLE = "/v2/models/ensemble"


@pytest.fixture(scope="module")
def repo(demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = assemble_demo(demo_engine, tmp_path_factory.mktemp("probed"))
    add_probes(target)
    return target


@pytest.fixture(scope="module")
def server(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Triton with nothing before it."""
    with serve(repo, tmp_path_factory.mktemp("server"), http_gateway=False) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.settings.url, timeout=300) as client:
        yield client


def eventually(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def nothing_is_left(repo: Path) -> None:
    assert settled(repo, 30) == {}


class GrpcStream:
    """A stream over gRPC that can be dropped."""

    def __init__(self, server: Server, prompt: bytes = b"Once upon a time", **values: Any) -> None:
        self.client = client_of(server)
        self.answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))
        values = {**LONG, "stream": True, **values}
        self.client.async_stream_infer("ensemble", request_inputs([prompt], values))

    def chunk(self) -> str:
        result, error = self.answers.get(timeout=60)
        assert error is None, error
        return str(result.as_numpy("text_output").reshape(-1)[0].decode())

    def drop(self) -> None:
        self.client.stop_stream(cancel_requests=True)
        self.client.close()


def test_a_stream_that_is_alone_leaves_when_its_client_cancels(server: Server, repo: Path) -> None:
    asked = GrpcStream(server)
    asked.chunk()
    assert state(repo)["in_engine"] == 1
    asked.drop()
    eventually(lambda: state(repo)["in_engine"] == 0)
    nothing_is_left(repo)


@pytest.mark.promise("disconnects")
def test_a_stream_leaves_while_others_run_on(server: Server, repo: Path) -> None:
    others = [GrpcStream(server, b"Other %d:" % number, max_tokens=1500) for number in range(3)]
    asked = GrpcStream(server)
    for one in [*others, asked]:
        one.chunk()
    asked.drop()
    eventually(lambda: state(repo)["in_engine"] == 3)
    for one in others:
        for _ in range(20):
            one.chunk()
    for one in others:
        one.drop()
    nothing_is_left(repo)


def test_a_stream_cancelled_before_its_first_chunk_leaves(server: Server, repo: Path) -> None:
    asked = GrpcStream(server, b"word " * 1500)  # seconds of prefill
    eventually(lambda: state(repo)["in_engine"] == 1)
    asked.drop()
    eventually(lambda: state(repo)["in_engine"] == 0, 60)
    nothing_is_left(repo)


@pytest.mark.promise("disconnects")
def test_an_http_client_that_hangs_up_on_a_stream_frees_its_place(
    server: Server, repo: Path
) -> None:
    body = json.dumps({"text_input": "Once", "stream": True, **LONG}).encode()
    head = f"POST {ENSEMBLE}/generate_stream HTTP/1.1\r\nHost: localhost"
    head += f"\r\nContent-Length: {len(body)}"
    address = ("127.0.0.1", server.settings.http_port)
    with socket.create_connection(address) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        assert connection.recv(1000)
        eventually(lambda: state(repo)["in_engine"] == 1)
    nothing_is_left(repo)


def test_the_requests_of_a_gone_client_leave_at_once(
    server: Server, http: httpx.Client, repo: Path
) -> None:
    token, other = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    gone = DisconnectSender(server.process.pid)

    def ask_with(mark: str, tokens: int) -> httpx.Response:
        body = {"text_input": "A", "max_tokens": tokens, "end_id": -1, PARAMETER: mark}
        return http.post(f"{ENSEMBLE}/generate", json=body)

    with ThreadPoolExecutor(5) as pool:
        lost = [pool.submit(ask_with, token, 6000) for _ in range(3)]
        kept = pool.submit(ask_with, other, 400)
        eventually(lambda: state(repo)["in_engine"] == 4)
        assert gone.tell("tensorrt_llm", [token])
        assert all("cancelled" in future.result().text for future in lost)
        assert kept.result().status_code == 200
        # A request that comes after the news of its client is not begun.
        assert "cancelled" in ask_with(token, 6000).text
    gone.close()
    nothing_is_left(repo)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can send as another user")
def test_another_user_cancels_nothing(server: Server, http: httpx.Client, repo: Path) -> None:
    token = secrets.token_urlsafe(16)
    body = {"text_input": "A", "max_tokens": 150, "end_id": -1, PARAMETER: token}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(http.post, f"{ENSEMBLE}/generate", json=body)
        eventually(lambda: state(repo)["in_engine"] == 1)
        tell_as_nobody(server.process.pid, token)
        assert asked.result().status_code == 200


def tell_as_nobody(server_pid: int, token: str) -> None:
    """Send the news from a process of another user."""
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        told = DisconnectSender(server_pid).tell("tensorrt_llm", [token])
        os._exit(0 if told else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def stop(http: httpx.Client, request_id: str) -> dict[str, Any]:
    response = http.post(f"{ENSEMBLE}/generate", json={"id": request_id, "stop": True})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_stop_ends_every_request_of_its_id_with_what_it_has(
    server: Server, http: httpx.Client, repo: Path
) -> None:
    body = {"text_input": "Once upon a time", **LONG, "return_finish_reason": True}
    with ThreadPoolExecutor(3) as pool, client_of(server) as client:
        whole = pool.submit(http.post, f"{ENSEMBLE}/generate", json={**body, "id": "seven"})
        other = pool.submit(ask, http, "Once", max_tokens=300, end_id=-1, return_finish_reason=True)
        streamed = generate(
            client,
            [b"Once upon a time"],
            {
                **LONG,
                "stream": True,
                "return_finish_reason": True,
                "return_num_output_tokens": True,
            },
            request_id="seven",
        )
        chunks = [next(streamed) for _ in range(10)]
        assert stop(http, "seven")["text_output"] == ""
        chunks.extend(streamed)
        answer = whole.result()
        assert other.result()["finish_reason"] == "length"
    assert [chunk["finish_reason"].item() for chunk in chunks if "finish_reason" in chunk] == [
        b"cancelled"
    ]
    assert chunks[-1]["finish_reason"].item() == b"cancelled"
    assert sum(chunk["num_output_tokens"].item() for chunk in chunks) < 6000
    assert answer.status_code == 200
    assert answer.json()["finish_reason"] == "cancelled"
    assert len(answer.json()["text_output"]) > 10
    nothing_is_left(repo)


def test_stop_of_an_id_that_nobody_has_is_an_empty_answer(http: httpx.Client, repo: Path) -> None:
    assert stop(http, "nobody")["text_output"] == ""
    nothing_is_left(repo)


def test_stop_without_an_id_is_refused_and_stops_nothing(
    server: Server, http: httpx.Client, repo: Path
) -> None:
    needs = "stop: needs the id of the request to end"
    with ThreadPoolExecutor(1) as pool, client_of(server) as client:
        asked = pool.submit(ask, http, "Once", max_tokens=100, end_id=-1, return_finish_reason=True)
        eventually(lambda: state(repo)["in_engine"] == 1)
        assert needs in refused(http, {"stop": True})
        assert needs in refused(http, {"stop": True, "id": ""})
        with pytest.raises(InferenceServerException, match=needs):
            list(generate(client, [b"Once"], {"max_tokens": 1, "stop": True}))
        assert asked.result()["finish_reason"] == "length"
    nothing_is_left(repo)


def test_stop_asked_of_the_engine_directly(server: Server, http: httpx.Client, repo: Path) -> None:
    def inputs(tokens: int, key: int, *more: triton.InferInput) -> list[triton.InferInput]:
        return [
            tensor("input_ids", "INT32", np.array([[504, 3575]], np.int32)),
            tensor("input_lengths", "INT32", np.array([[2]], np.int32)),
            tensor("request_output_len", "INT32", np.array([[tokens]], np.int32)),
            tensor("stream_key", "UINT64", np.array([[key << 16]], np.uint64)),
            *more,
        ]

    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with client_of(server) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        flags = [
            tensor(name, "BOOL", np.array([[True]])) for name in ("stop", "return_finish_reason")
        ]
        client.async_stream_infer("tensorrt_llm", inputs(6000, 1, flags[1]), request_id="x")
        eventually(lambda: state(repo)["in_engine"] == 1)
        ask(http, "Once", max_tokens=4)  # in whose steps the other one gets tokens, too
        client.async_stream_infer("tensorrt_llm", inputs(1, 2, flags[0]), request_id="x")
        found = {}
        for _ in range(2):
            result, error = answers.get(timeout=30)
            assert error is None, error
            found[int(result.as_numpy("stream_key").item()) >> 16] = result
        client.async_stream_infer("tensorrt_llm", inputs(1, 3, flags[0]))
        _, error = answers.get(timeout=30)
    assert "stop: needs the id of the request to end" in str(error)
    assert found[2].as_numpy("output_ids").size == 0
    assert found[1].as_numpy("finish_reason").tolist() == [[b"cancelled"]]
    assert 0 < found[1].as_numpy("output_ids").size < 6000
    nothing_is_left(repo)


def figure(server: Server, name: str) -> float:
    page = httpx.get(f"http://127.0.0.1:{server.settings.metrics_port}/metrics").text
    (line,) = (line for line in page.splitlines() if line.startswith(name))
    return float(line.split()[-1])


def test_the_metrics_say_what_is_in_flight_and_what_was_cancelled(
    server: Server, repo: Path
) -> None:
    nothing_is_left(repo)
    time.sleep(0.5)  # figures are reported every 50 ms: what was cancelled before is in them
    before = figure(server, "trellis_requests_cancelled_total")
    streams = [GrpcStream(server) for _ in range(3)]
    for asked in streams:
        asked.chunk()
    eventually(lambda: figure(server, "trellis_requests_in_flight") == 3)
    for asked in streams:
        asked.drop()
    eventually(lambda: figure(server, "trellis_requests_in_flight") == 0)
    eventually(lambda: figure(server, "trellis_requests_cancelled_total") == before + 3)


def memory(server: Server) -> dict[str, int]:
    """Private bytes of each model's process."""
    return {
        model: psutil.Process(pid).memory_full_info().uss for pid, model in server.stubs().items()
    }


def test_a_thousand_dropped_streams_leave_nothing(server: Server, repo: Path) -> None:
    def start_and_drop(number: int) -> None:
        asked = GrpcStream(server, b"Stream %d" % number)
        if number % 3:
            asked.chunk()
        asked.drop()

    def drop(numbers: range) -> None:
        with ThreadPoolExecutor(16) as pool:
            assert sum(1 for _ in pool.map(start_and_drop, numbers)) == len(numbers)
        nothing_is_left(repo)

    drop(range(300))
    before = memory(server)
    drop(range(300, 1300))
    grown = {model: after - before[model] for model, after in memory(server).items()}
    del grown["tensorrt_llm"]  # the engine touches more of its KV cache as more is asked of it
    assert max(grown.values()) < 8 << 20, grown


def test_no_live_stream_is_dropped_while_processes_pause(server: Server, repo: Path) -> None:
    """64 streams, some slow readers. Triton gives up a model's process after about a second."""
    before = figure(server, "trellis_requests_cancelled_total")
    tokens = 60
    pauses = [(pid, 0.4) for pid in server.stubs()] * 3
    pauses += [(server.process.pid, seconds) for seconds in (0.4, 4.0)]
    paused = threading.Event()

    def one(number: int) -> int:
        count = 0
        with client_of(server) as client:
            values = {"max_tokens": tokens, "end_id": -1, "stream": True}
            values["return_num_output_tokens"] = True
            for response in generate(client, [b"Stream %d" % number], values):
                count += response["num_output_tokens"].item()
                if number % 8 == 0 and count >= 5:
                    paused.wait(60)  # a slow reader
        return count

    def pause_each() -> None:
        for pid, seconds in pauses:
            time.sleep(0.5)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)
        paused.set()

    with ThreadPoolExecutor(65) as pool:
        pausing = pool.submit(pause_each)
        counts = list(pool.map(one, range(64)))
        pausing.result()
    assert counts == [tokens] * 64
    assert figure(server, "trellis_requests_cancelled_total") == before
    nothing_is_left(repo)
