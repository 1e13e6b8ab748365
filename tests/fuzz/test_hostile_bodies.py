"""Bodies made to exhaust a parser: each of them alone ends Triton 24.10's own HTTP gateway end."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from trellis.server.process import Server

ENSEMBLE = "/v2/models/ensemble"
HEAD = b'{"text_input": "x", "max_tokens": 2, "more": '
MILLION = 10**6


def body_of(name: str) -> bytes:
    return {
        "lists in lists": HEAD + b"[" * MILLION + b"]" * MILLION + b"}",
        "objects in objects": HEAD + b'{"a":' * MILLION + b"1" + b"}" * MILLION + b"}",
        "lists never closed": HEAD + b"[" * MILLION,
        "a number of a million digits": HEAD + b"1" * MILLION + b"}",
        "a million fields": HEAD
        + b"1"
        + b"".join(b', "k%d": 1' % index for index in range(MILLION // 10))
        + b"}",
    }[name]


@pytest.fixture(autouse=True)
def unharmed(http: httpx.Client) -> Iterator[None]:
    """The server answers after the test as it did before."""
    known = {"text_input": "The capital of France is", "max_tokens": 8}
    expected = http.post(f"{ENSEMBLE}/generate", json=known).json()["text_output"]
    yield
    response = http.post(f"{ENSEMBLE}/generate", json=known)
    assert response.json()["text_output"] == expected


@pytest.mark.promise("made-up requests")
@pytest.mark.parametrize(
    "name",
    [
        "lists in lists",
        "objects in objects",
        "lists never closed",
        "a number of a million digits",
        "a million fields",
    ],
)
@pytest.mark.parametrize("endpoint", ["generate", "generate_stream"])
def test_a_body_made_to_exhaust_the_parser_is_refused(
    http: httpx.Client, name: str, endpoint: str
) -> None:
    response = http.post(f"{ENSEMBLE}/{endpoint}", content=body_of(name))
    assert response.status_code in (400, 413), response.text[:300]
    small = body_of(name)[:1_000_000]  # within the limit of a body
    assert http.post(f"{ENSEMBLE}/{endpoint}", content=small).status_code == 400


def test_a_body_in_a_million_chunks_ends_in_an_answer(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.settings.http_port), timeout=60) as client:
        client.sendall(
            f"POST {ENSEMBLE}/generate HTTP/1.1\r\nHost: localhost\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
        )
        body = b'{"text_input": "x", "max_tokens": 2, "id": "'
        client.sendall(b"%x\r\n%s\r\n" % (len(body), body))
        with contextlib.suppress(OSError):  # it was answered before all had come
            for _ in range(1000):
                client.sendall(b"1\r\na\r\n" * 1000)
            client.sendall(b'2\r\n"}\r\n0\r\n\r\n')
        status = client.makefile("rb").readline()
    assert status.startswith(b"HTTP/1.1 400 "), status


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/preprocessing/infer",
        "/v2/models/preprocessing/generate",
        "/v2/models/tensorrt_llm/generate_stream",
        "/v2/models/postprocessing/versions/1/infer",
        "/v2/logging",
        "/v2/repository/index",
        "/v2/models/ensemble/trace/setting",
    ],
)
@pytest.mark.parametrize("escaped", [b"", b'"\\"[", '])
def test_nesting_is_refused_at_every_endpoint(
    http: httpx.Client, path: str, escaped: bytes
) -> None:
    content = b"[" + escaped + b"[" * MILLION + b"]" * MILLION + b"]"
    try:
        status = http.post(path, content=content).status_code
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return  # its head had been passed on already: too late for an answer, so it was cut off
    assert status in (400, 403, 404, 405, 413), status


def test_brackets_in_strings_and_in_binary_data_are_no_nesting(http: httpx.Client) -> None:
    text = "[{" * 2000 + '"\\'
    answer = http.post(f"{ENSEMBLE}/generate", json={"text_input": text, "max_tokens": 1})
    assert answer.status_code == 200, answer.text
    size = len(text.encode()) + 4
    inputs: list[dict[str, Any]] = [
        {"name": "text_input", "shape": [1, 1], "datatype": "BYTES"},
        {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [1]},
    ]
    inputs[0]["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": inputs}).encode()
    data = head + (size - 4).to_bytes(4, "little") + text.encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    answer = http.post(f"{ENSEMBLE}/infer", content=data, headers=length)
    assert answer.status_code == 200, answer.text
