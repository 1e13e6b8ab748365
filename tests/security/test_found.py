"""What ended, stalled or misled a server that passed on what it did not know, by kind.

Before a real tritonserver: every request is answered by the gateway, and the server lives. Limits
of connections, pieces and times are shown in tests/unit/gateway/, where they can be made small.
"""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.gateway_process import listens
from support.gateway_wire import ENSEMBLE, Answer, Wire, events, get, post, stream, wait_for
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings
from trellis.server.ports import free_ports
from trellis.server.process import Server

KNOWN = {"text_input": "The capital of France is", "max_tokens": 4}
LONG = {"text_input": "Once upon a time", "max_tokens": 6000, "end_id": -1}
MILLION = 10**6


@pytest.fixture(scope="module")
def port(server: Server) -> int:
    """The gateway's."""
    return server.settings.http_port


@pytest.fixture(autouse=True)
def unharmed(server: Server, port: int) -> Iterator[None]:
    """The server answers after the test as it did before; neither process was replaced."""
    assert server.gateway is not None
    before = text_of(port)
    yield
    assert server.process.poll() is None
    assert server.gateway.poll() is None
    assert text_of(port) == before


def text_of(port: int) -> str:
    with Wire(port, 60) as wire:
        text: str = json.loads(wire.send(post(KNOWN)).answer().body)["text_output"]
    return text


def asked(port: int, request: bytes, seconds: float = 20) -> Answer:
    """The answer to a request, of which not all may be read."""
    with Wire(port, seconds) as wire:
        with contextlib.suppress(OSError):  # it was answered, and closed, before all had come
            wire.send(request)
        return wire.answer()


# Ends the server.

TEXT = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]}
TOKENS = {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [2]}
SHAPES: list[Any] = [
    [1, 2**62], [2**62, 1], [1, 2**34], [2**31, 2**31], [2**64, 1], [1, -1], [-1, -(2**62)],
    [0, 1], [1, 0], [1], [], [1, 1, 1], [1.0, 1], [True, 1], ["1", 1], [1, 10**400], None, 2**62,
    {"a": 1}, [[1, 1]],
]  # fmt: skip


def infer(*inputs: dict[str, Any], **more: Any) -> bytes:
    return post({"inputs": list(inputs), **more}, target=f"{ENSEMBLE}/infer")


@pytest.mark.promise("shut")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("data", [["x"], [], None])
def test_a_shape_is_the_ensembles_and_has_its_values(port: int, shape: Any, data: Any) -> None:
    for good, other in ((TEXT, TOKENS), (TOKENS, TEXT)):
        bad = {**good, "shape": shape, "data": data}
        if data is None:
            del bad["data"]
        answer = asked(port, infer(bad, other))
        assert (answer.status, answer.error.partition(":")[0]) == (400, good["name"])


@pytest.mark.parametrize("size", [2**62, 2**31, -1, 0, 5, "4", 1.5, True, None])
def test_binary_data_have_the_size_that_is_there(port: int, size: Any) -> None:
    tensor: dict[str, Any] = {"name": "text_input", "shape": [1, 1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [tensor, TOKENS]}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    answer = asked(port, post(head + b"\1\0\0\0", length, target=f"{ENSEMBLE}/infer"))
    assert answer.status == 400


@pytest.mark.parametrize("length", ["0", "-1", "9999999999", "2, 3", "x", "", "1e3", "9" * 500])
@pytest.mark.parametrize("verb", ["generate", "generate_stream", "infer"])
def test_the_length_of_the_json_is_of_infer_alone_and_within_the_body(
    port: int, length: str, verb: str
) -> None:
    header = f"Inference-Header-Content-Length: {length}"
    for body in (b"[" * 200_000, b"[" * MILLION, b'{"inputs": []}', b"{" * 5000):
        answer = asked(port, post(body, header, target=f"{ENSEMBLE}/{verb}"))
        assert answer.status == 400
        assert len(answer.error) < 600


@pytest.mark.parametrize(
    "parameters",
    [
        {"classification": 3}, {"classification": 2**62}, {"shared_memory_region": "x"},
        {"shared_memory_region": "x", "shared_memory_byte_size": 2**62}, {"anything": 1},
    ],
)  # fmt: skip
def test_outputs_are_neither_classified_nor_written_to_memory(
    port: int, parameters: dict[str, Any]
) -> None:
    output = {"name": "text_output", "parameters": parameters}
    assert asked(port, infer(TEXT, TOKENS, outputs=[output])).status == 400
    tensor = {**TEXT, "parameters": parameters}
    assert asked(port, infer(tensor, TOKENS)).status == 400


def test_infer_answers_what_is_right(port: int) -> None:
    answer = asked(port, infer({**TEXT, "data": [KNOWN["text_input"]]}, {**TOKENS, "data": [4]}))
    assert answer.status == 200
    outputs = {one["name"]: one["data"] for one in json.loads(answer.body)["outputs"]}
    assert outputs["text_output"] == [text_of(port)]


# Stalls it.


def keys(count: int) -> bytes:
    return json.dumps({"text_input": "x", **{f"k{n}": 1 for n in range(count)}}).encode()


def floats(count: int) -> bytes:
    return b'{"text_input": "x", "embedding_bias_weights": [%s]}' % b",".join([b"0.5"] * count)


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (keys(60_000), (400,)),
        (keys(150_000), (413,)),
        (floats(200_000), (400,)),
        (floats(4_000_000), (413,)),
        (b'{"text_input": "x", "max_tokens": ' + b"9" * 900_000 + b"}", (400,)),
        (b'{"text_input": "' + b"\\u0041" * 170_000 + b'", "max_tokns": 1}', (400,)),
        (b"[" * 500_000 + b"]" * 500_000, (400,)),
        (b'"' * 1_000_000, (400,)),
        (b'{"":[{"":[{"":[' * 60_000, (400,)),
    ],
    ids=["keys", "more keys", "numbers", "16 MB of numbers", "digits", "escapes", "brackets",
         "quotes", "all of it"],
)  # fmt: skip
@pytest.mark.parametrize("target", ["generate", "infer"])
def test_json_that_takes_long_to_parse_holds_up_nobody(
    port: int, body: bytes, statuses: tuple[int, ...], target: str
) -> None:
    with Wire(port, 60) as hostile, Wire(port) as other:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            hostile.send(post(body, target=f"{ENSEMBLE}/{target}"))
        looks = []
        for _ in range(10):  # of others, while it is read
            look = time.monotonic()
            assert other.send(get("/v2/health/live")).answer().status == 200
            looks.append(time.monotonic() - look)
        assert hostile.answer().status in statuses
        assert time.monotonic() - begin < 15
    assert sorted(looks)[-1] < 1.0


@pytest.mark.parametrize("verb", ["generate", "generate_stream", "infer"])
@pytest.mark.parametrize("name", ["preprocessing", "tensorrt_llm", "postprocessing"])
def test_inner_models_get_none_of_it(port: int, name: str, verb: str) -> None:
    answer = asked(port, post(keys(60_000), target=f"/v2/models/{name}/{verb}"))
    assert answer.status == 404


def test_a_thousand_idle_connections_keep_nobody_out(server: Server) -> None:
    """Though the shell that started it gave it 1,024 descriptors."""
    (public,) = free_ports(1)
    settings = GatewaySettings("127.0.0.1", public, server.triton_port, server.process.pid, 1.0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def as_a_shell_does() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))

    process = subprocess.Popen(settings.command(), cwd=IMPORTED_FROM, preexec_fn=as_a_shell_does)
    try:
        wait_for(lambda: listens(public))
        with ExitStack() as stack:
            for _ in range(1400):
                idle = socket.create_connection(("127.0.0.1", public), 10)
                stack.callback(idle.close)
            assert text_of(public)
    finally:
        process.kill()
        process.wait()


# Passes the checks.


@pytest.mark.parametrize(
    "target",
    [
        "HTTP://x/v2/models/tensorrt_llm/generate", "hTTp://x:1/v2/models/preprocessing/infer",
        "HTTPS://x/v2/models/postprocessing/generate", "http://x//v2/models/tensorrt_llm/infer",
        "HTTP://x/v2/repository/models/ensemble/unload", "HTTP://x/v2/logging",
    ],
)  # fmt: skip
def test_a_scheme_goes_around_nothing(port: int, target: str) -> None:
    for body in (b"{}", b"[" * 100_000):
        assert asked(port, post(body, target=target)).status in (400, 403, 404)


def test_a_scheme_is_left_out_of_what_is_right(port: int) -> None:
    answer = asked(port, post(KNOWN, target=f"HTTP://any{ENSEMBLE}/generate"))
    assert json.loads(answer.body)["text_output"] == text_of(port)


HIDDEN = get("/v2/models/stats")  # in the body of another request
CHUNKED = b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
SMUGGLED = {
    "an upgrade": post(HIDDEN, "Connection: Upgrade", "Upgrade: websocket"),
    "an upgrade to h2c": post(HIDDEN, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c",
                              "HTTP2-Settings: AAMAAABk"),
    "two lengths": post(HIDDEN, "Content-Length: 0"),
    "length and chunks": post(b"0\r\n\r\n" + HIDDEN, "Transfer-Encoding: chunked"),
    "chunked, hidden": post(b"0\r\n\r\n" + HIDDEN, "Transfer-Encoding:\x0bchunked"),
    "chunked, spaced": post(b"0\r\n\r\n" + HIDDEN, "Transfer-Encoding : chunked"),
    "chunked, folded": post(b"0\r\n\r\n" + HIDDEN, "Transfer-Encoding:\r\n chunked"),
    "chunked, twice": post(b"0\r\n\r\n" + HIDDEN, "Transfer-Encoding: identity, chunked"),
    "a bare line feed": post(HIDDEN).replace(b"Host: localhost\r\n", b"Host: localhost\n"),
    "a bare line feed in a value": post(HIDDEN, "A: b\nContent-Length: 0"),
    "two hosts": post(HIDDEN, "Host: y"),
    "no host": post(HIDDEN).replace(b"Host: localhost\r\n", b""),
    "an obsolete version": post(HIDDEN, version="0.9"),
    "a wrong chunk size": CHUNKED + b"0x5\r\n" + HIDDEN,
    "a chunk that is longer": CHUNKED + b"1\r\nab\r\n0\r\n\r\n" + HIDDEN,
}  # fmt: skip


@pytest.mark.promise("shut")
@pytest.mark.parametrize("case", SMUGGLED)
def test_what_two_servers_may_read_in_two_ways_has_one_answer_and_ends_its_connection(
    port: int, case: str
) -> None:
    with Wire(port, 10) as wire:
        data = wire.send(SMUGGLED[case]).rest()
    assert len(re.findall(rb"HTTP/1\.1 \d\d\d ", data)) == 1
    assert data.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 ", b"HTTP/1.1 505 "))
    assert b"model_stats" not in data


# One client harms another.


def test_no_answer_shows_an_id_that_another_client_could_use(port: int) -> None:
    with Wire(port, 60) as wire:
        for request in (post(KNOWN), stream(KNOWN)):
            body = wire.send(request).answer().body
            assert b'"id"' not in body
        ids = []
        for _ in range(2):
            body = wire.send(post({**KNOWN, "id": "7"})).answer().body
            ids.append(json.loads(body)["id"])
        assert ids == ["7", "7"]


@pytest.mark.parametrize("key", [None, "k" * 16])
def test_a_guessed_id_stops_nothing(port: int, key: str | None) -> None:
    own = [f"Trellis-Stop-Key: {key}"] if key else []
    with Wire(port, 60) as wire, Wire(port, 60) as other:
        wire.send(stream({**LONG, "id": "1234"}, *own))
        assert wire.socket.recv(4096)
        guesses = ["1234", "123", "1234 ", "http-1-1", "http-00000000-1"]
        for guess in guesses:
            for headers in ([], ["Trellis-Stop-Key: " + "x" * 16]):
                answer = other.send(post({"id": guess, "stop": True}, *headers)).answer()
                assert answer.status == 200
        before = time.monotonic()
        while time.monotonic() - before < 0.5:
            assert wire.socket.recv(65536)  # it goes on
        if key:
            assert other.send(post({"id": "1234", "stop": True}, *own)).answer().status == 200
            data = b""
            while not data.endswith(b"0\r\n\r\n"):  # long before 6,000 tokens
                data = data[-8:] + wire.socket.recv(65536)


@pytest.mark.parametrize("key", ["short", "x" * 129, "é" * 20, "x" * 15, "\x01" * 20])
def test_a_key_that_is_easily_guessed_is_refused(port: int, key: str) -> None:
    answer = asked(port, post(KNOWN, f"Trellis-Stop-Key: {key}"))
    assert answer.status == 400


@pytest.mark.parametrize("sent", ["7\x00", "\x007", "7\n", "7\x1b", "7\ud800", "x" * 129, 7, ["7"]])
def test_an_id_is_text_that_can_be_shown(port: int, sent: Any) -> None:
    for verb in ("generate", "generate_stream", "infer"):
        body = {"id": sent, "inputs": [TEXT, TOKENS]} if verb == "infer" else {**KNOWN, "id": sent}
        answer = asked(port, post(body, target=f"{ENSEMBLE}/{verb}"))
        assert (answer.status, answer.error[:4]) == (400, "id: ")
        assert len(answer.error) < 200


def test_streams_of_two_clients_with_one_id_are_their_own(port: int) -> None:
    """Also where one of them hangs up and the other is to go on."""
    with Wire(port, 60) as one:
        one.send(stream({**KNOWN, "max_tokens": 16, "id": "same"}))
        with Wire(port, 60) as two:
            two.send(stream({**LONG, "id": "same"}))
            assert two.socket.recv(10)
        got = events(one.answer().body)
    assert "".join(event["text_output"] for event in got).startswith(text_of(port))


# Misleads.


def test_an_error_repeats_little_of_what_was_sent(port: int) -> None:
    long = "x" * 50_000
    requests = [
        post({**KNOWN, long: 1}),
        post({**KNOWN, "top_p": long}),
        post({**KNOWN, "max_tokens": long}),
        post({"text_input": "x", "parameters": {long: long}}),
        post({**KNOWN, "id": long}),
        get("/" + long),
        get(f"/v2/models/{long}/config"),
        post(KNOWN, target=f"/v2/models/{long}/generate"),
        post(KNOWN, f"Content-Type: {long}"),
        post(KNOWN, f"Content-Encoding: {long}"),
        post(KNOWN, f"Expect: {long}"),
        infer({**TEXT, "name": long}, TOKENS),
        infer({**TEXT, "datatype": long}, TOKENS),
    ]
    for request in requests:
        answer = asked(port, request)
        assert 400 <= answer.status < 500
        assert "x" * 65 not in answer.error
        assert len(answer.error) < 1500


def test_nothing_of_all_this_is_in_the_log_line_by_line(server: Server, port: int) -> None:
    """Wrong requests are answered, not logged; what is logged is no traceback, and little."""
    (public,) = free_ports(1)
    settings = GatewaySettings("127.0.0.1", public, server.triton_port, server.process.pid, 1.0)
    process = subprocess.Popen(settings.command(), cwd=IMPORTED_FROM, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: listens(public))
        with Wire(public, 60) as wire:
            for _ in range(300):
                assert wire.send(post({**KNOWN, "top_p": "x"})).answer().status == 400
        for bad in (*SMUGGLED.values(), b"\x16\x03\x01", b"GET / HTTP/9.9\r\n\r\n"):
            with Wire(public) as wire:
                wire.send(bad).socket.shutdown(socket.SHUT_WR)
        os.kill(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=20)[1].decode()
    finally:
        process.kill()
    assert "Traceback" not in said
    assert len(said.splitlines()) < 10, said
