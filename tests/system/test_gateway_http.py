"""The gateway on the wire: whatever a client does with HTTP, before a real tritonserver."""

import contextlib
import gzip
import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.gateway_process import gateway, listens
from support.gateway_wire import (
    ENSEMBLE,
    Wire,
    descriptors,
    events,
    get,
    pieces,
    post,
    stream,
    text,
    wait_for,
)
from support.standin import Script, read_journal
from support.standin_server import Served, serve
from trellis.gateway.limits import MIN_BODY_BYTES, Limits
from trellis.server.ports import free_ports
from trellis.soak.measure import stuck
from trellis.tokenizers import Tokenizer, load

TEXT = "안녕하세요 세계 😀 naïve — " * 3
WORDS = ["apples", "bears", "cats", "dogs", "eels", "foxes", "geese", "hens"]
ASKED = {"text_input": "Tell me bears", "max_tokens": 500}
HEAD_BYTES = Limits().head_bytes
SEEDS = ("seed", "random_seed")
KEY = "Trellis-Stop-Key: a-secret-of-this-client"
LONG = {"text_input": "Say this", "max_tokens": 2000}  # is echoed again and again


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, standin_library: Path, llama_folder: Path
) -> Iterator[Served]:
    """A prompt that ends with a word is answered with TEXT and that word, a token in 3 ms."""
    llama: Tokenizer = load("llama", llama_folder)
    scripts = [
        Script(prompt=llama.encode_fragment(f" {word}"), answer=llama.encode(TEXT + word)[1:])
        for word in WORDS
    ]
    folder = tmp_path_factory.mktemp("front")
    pace: dict[str, Any] = {"token_delay_us": "3000", "delay_from_seed": "true"}
    pace |= {"exposes": True, "limits": {"kept_seconds": 0.3}}  # tests wait until all is closed
    with serve("1.x", folder, standin_library, llama_folder, scripts, **pace) as running:
        yield running


@pytest.fixture
def port(served: Served) -> int:
    """The gateway's."""
    return served.server.settings.http_port


@pytest.fixture(autouse=True)
def nothing_left(served: Served) -> Iterator[None]:
    """Whatever a test did, the gateway lives, answers, and gives every descriptor back."""
    front = served.server.gateway
    assert front is not None
    before = descriptors(front.pid)
    yield
    assert front.poll() is None
    with Wire(served.server.settings.http_port) as wire:
        assert wire.send(get()).answer().status == 200
    wait_for(lambda: descriptors(front.pid) <= before)


def ends(served: Served, seed: int) -> list[str]:
    """How the requests of a seed, which is their pace too, ended in the engine."""
    journal = read_journal(served.folder / "journal")
    ids = {
        event["id"]
        for event in journal
        if event["event"] == "request"
        and any(event["inputs"].get(name, {}).get("values") == [seed] for name in SEEDS)
    }
    return [e["reason"] for e in journal if e["event"] == "end" and e["id"] in ids]


def in_engine(served: Served) -> int:
    """Requests that came to the engine and have not ended; those that stop others do not count."""
    journal = read_journal(served.folder / "journal")
    begun = [event for event in journal if event["event"] == "request"]
    stops = [
        event for event in begun if event["inputs"].get("stop", {}).get("values") in ([1], [True])
    ]
    ended = [event for event in journal if event["event"] == "end"]
    return len(begun) - len(stops) - len(ended)


CLOSE = "Connection: close"
SAME = {
    "readiness": get("/v2/health/ready"),
    "metadata": get(ENSEMBLE),
    "configuration": get(f"{ENSEMBLE}/config"),
    "statistics of one that is not there": get("/v2/models/nope/stats"),
    "HTTP/1.0": get("/v2", version="1.0"),
    "generate": post({**ASKED, "id": "same"}),
    "generate, HTTP/1.0": post({**ASKED, "id": "same"}, version="1.0"),
    "generate with an error of the model": post({**ASKED, "id": "same", "top_p": 7}),
    "stream with an error of the model": stream({**ASKED, "id": "same", "top_p": 7}),
    "generate of a version": post(
        {**ASKED, "id": "same"}, target=f"{ENSEMBLE}/versions/1/generate"
    ),
    "stream": stream({**ASKED, "id": "same"}),
}


@pytest.mark.parametrize("case", SAME)
def test_what_clients_get_is_what_triton_says(served: Served, port: int, case: str) -> None:
    with Wire(port) as front, Wire(served.server.triton_port) as direct:
        through, wanted = front.send(SAME[case]).answer(), direct.send(SAME[case]).answer()
    assert (through.status, through.headers.get("content-type")) == (
        wanted.status,
        wanted.headers.get("content-type"),
    )
    assert through.body == wanted.body


def test_one_connection_takes_one_request_after_another(port: int) -> None:
    with Wire(port) as wire:
        for number in range(20):
            assert wire.send(get()).answer().status == 200
            answer = wire.send(post({**ASKED, "text_input": f"Tell me {WORDS[number % 8]}"}))
            assert json.loads(answer.answer().body)["text_output"] == TEXT + WORDS[number % 8]
            assert "max_tokns" in wire.send(post({**ASKED, "max_tokns": 3})).answer().error


def test_requests_sent_ahead_are_answered_in_their_order(port: int) -> None:
    wrong = post({**ASKED, "max_tokens": "x"})
    with Wire(port) as wire:
        wire.send(stream(ASKED) + wrong + get() + post(ASKED) + wrong + get("/v2", CLOSE))
        assert text(wire.answer().body) == TEXT + "bears"
        assert "max_tokens" in wire.answer().error
        assert wire.answer().status == 200
        assert json.loads(wire.answer().body)["text_output"] == TEXT + "bears"
        assert "max_tokens" in wire.answer().error
        assert b"triton" in wire.answer().body
        assert wire.closed()


def test_a_flood_of_requests_sent_ahead_is_answered_and_does_not_pile_up(
    served: Served, port: int
) -> None:
    count = 30_000
    with Wire(port, 120) as wire:
        sender = threading.Thread(target=wire.send, args=(stream(ASKED) + get() * count,))
        sender.start()
        assert text(wire.answer().body) == TEXT + "bears"
        begin, answered, cut = b"HTTP/1.1 200", 0, b""
        while answered < count:
            more = wire.socket.recv(1 << 20)
            assert more
            data = cut + more
            answered += data.count(begin)
            cut = data[1 - len(begin) :]  # an answer's beginning may lie in two
        sender.join(10)


def test_a_request_may_come_byte_by_byte(port: int) -> None:
    with Wire(port) as wire:
        for piece in pieces(post(ASKED) + get(), 1):
            wire.send(piece)
        assert json.loads(wire.answer().body)["text_output"] == TEXT + "bears"
        assert wire.answer().status == 200


INFER = {
    "id": "mine",
    "inputs": [
        {"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["Tell me bears"]},
        {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [500]},
    ],
}
TOKENIZE = {
    "inputs": [
        {"name": "QUERY", "shape": [1, 1], "datatype": "BYTES", "data": ["Hello"]},
        {"name": "REQUEST_OUTPUT_LEN", "shape": [1, 1], "datatype": "INT32", "data": [4]},
    ]
}


@pytest.mark.parametrize("target", ["/generate", "/infer"])
def test_a_body_may_come_in_chunks(port: int, target: str) -> None:
    body = json.dumps(INFER if target == "/infer" else ASKED).encode()
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(p), p) for p in pieces(body, 7))
    head = f"POST {ENSEMBLE}{target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    with Wire(port) as wire:
        wire.send(head.encode() + b"\r\n" + chunks + b"0\r\nTrailer: dropped\r\n\r\n" + get())
        answer = wire.answer()
        assert answer.status == 200, answer
        made = json.loads(answer.body)
        if target == "/infer":
            outputs = {output["name"]: output["data"] for output in made["outputs"]}
            assert (made["id"], outputs["text_output"]) == ("mine", [TEXT + "bears"])
        else:
            assert made["text_output"] == TEXT + "bears"
        assert wire.answer().status == 200


def test_an_exposed_inner_model_is_asked_by_infer(port: int) -> None:
    with Wire(port) as wire:
        answer = wire.send(post(TOKENIZE, target="/v2/models/preprocessing/infer")).answer()
    assert answer.status == 200, answer
    outputs = {output["name"]: output for output in json.loads(answer.body)["outputs"]}
    assert outputs["INPUT_ID"]["shape"][0] == 1
    assert len(outputs["INPUT_ID"]["data"]) == outputs["INPUT_ID"]["shape"][1] > 0


def test_a_client_that_waits_for_100_continue_gets_it(port: int) -> None:
    head, _, body = post(ASKED, "Expect: 100-continue").partition(b"\r\n\r\n")
    with Wire(port) as wire:
        wire.send(head + b"\r\n\r\n")
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert wire.socket.recv(len(interim)) == interim
        assert wire.send(body).answer().status == 200


def test_head_is_refused_without_a_body(port: int) -> None:
    """Triton refuses it too, but with a body, which a client would take for the next answer."""
    with Wire(port) as wire:
        answer = wire.send(get().replace(b"GET", b"HEAD", 1)).answer("HEAD")
        assert (answer.status, answer.body) == (405, b"")
        assert wire.closed()


TWO_READINGS = {
    "length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n",
    "the same length twice": b"Content-Length: 4\r\nContent-Length: 4\r\n",
    "a length that is none": b"Content-Length: +4\r\n",
    "an encoding beside chunked": b"Transfer-Encoding: gzip, chunked\r\n",
    "an encoding that is not chunked": b"Transfer-Encoding: xchunked\r\n",
    "two encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n",
    "a folded header": b"Transfer-Encoding:\r\n chunked\r\n",
    "a NUL": b"X: a\x00b\r\n",
    "a bare carriage return": b"X: a\rContent-Length: 4\r\n",
}


@pytest.mark.parametrize("target", ["/generate", "/infer"])
@pytest.mark.parametrize("case", TWO_READINGS)
def test_a_request_with_two_readings_is_refused_and_ends_its_connection(
    port: int, case: str, target: str
) -> None:
    head = f"POST {ENSEMBLE}{target} HTTP/1.1\r\nHost: localhost\r\n".encode() + TWO_READINGS[case]
    with Wire(port) as wire:
        wire.send(head + b"\r\n0\r\n\r\n" + get())
        answer = wire.answer()
        assert answer.status == 400
        assert answer.error
        assert answer.headers["connection"] == "close"
        assert wire.closed()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"x" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n", 431),
        (get("/v2", *(f"X-{n}: {'y' * 900}" for n in range(80))), 431),
        (post(b"", f"X: {'y' * 70000}"), 431),
        (post(b"").replace(b"Content-Length: 0", b"Content-Length: 999999999"), 413),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 400),
        (b"CONNECT example.org:80 HTTP/1.1\r\n\r\n", 405),
        (b"GET\r\n\r\n", 400),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_status(
    port: int, sent: bytes, status: int
) -> None:
    with Wire(port) as wire:
        answer = wire.send(sent).answer()
        assert (answer.status, bool(answer.error)) == (status, True)
        assert wire.closed()


def test_a_body_in_chunks_beyond_the_limit_is_refused(port: int) -> None:
    head = f"POST {ENSEMBLE}/generate HTTP/1.1\r\nHost: localhost\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    with Wire(port) as wire:
        wire.send(head.encode())
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(MIN_BODY_BYTES // 0x100000 + 1):
            _send_all(wire, chunk)
        assert wire.answer().status == 413


def test_a_head_that_goes_on_for_ever_is_refused(port: int) -> None:
    with Wire(port) as wire:
        wire.send(b"GET /v2 HTTP/1.1\r\n")
        try:
            for _ in range(1000):
                wire.send(b"X: " + b"y" * 1000 + b"\r\n")
        except OSError:
            return  # it was closed meanwhile
        assert wire.answer().status == 431


def test_large_uploads_are_refused_while_others_are_served(port: int) -> None:
    with Wire(port, 60) as wire, Wire(port) as other:
        sender = threading.Thread(target=_send_all, args=(wire, post(b" " * 30_000_000)))
        sender.start()
        assert json.loads(other.send(post(ASKED)).answer().body)["text_output"] == TEXT + "bears"
        assert wire.answer().status == 413
        sender.join(10)


def _send_all(wire: Wire, data: bytes) -> None:
    with contextlib.suppress(OSError):  # it was answered before all of it had come
        wire.send(data)


def test_a_gzipped_prompt_is_a_prompt(port: int) -> None:
    body = gzip.compress(json.dumps(ASKED).encode())
    with Wire(port) as wire:
        answer = wire.send(post(body, "Content-Encoding: gzip")).answer()
    assert json.loads(answer.body)["text_output"] == TEXT + "bears"


def test_a_client_done_with_sending_still_gets_what_needs_no_engine(port: int) -> None:
    with Wire(port) as wire:
        wire.send(get("/v2") + get()).socket.shutdown(1)
        assert wire.rest().count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("ask", [post, stream])
def test_a_client_done_with_sending_counts_as_gone_and_is_told(
    served: Served, port: int, ask: object
) -> None:
    request = post if ask is post else stream
    seed = 20_001 + (request is post)
    with Wire(port) as wire:
        wire.send(request({**LONG, "seed": seed})).socket.shutdown(1)
        answer = wire.answer()
        assert (answer.status, "closed for sending" in answer.error) == (400, True)
    wait_for(lambda: ends(served, seed) == ["cancelled"] or in_engine(served) == 0)


@pytest.mark.parametrize("kind", ["stream", "whole"])
def test_the_engine_stops_when_a_client_hangs_up(served: Served, port: int, kind: str) -> None:
    """TensorRT-LLM's own engine is stopped by the request's id: the journal is the engine's."""
    seed = 20_003 + (kind == "stream")  # 40 seconds, if nobody stopped it
    with Wire(port) as wire:
        wire.send((stream if kind == "stream" else post)({**LONG, "seed": seed}))
        wait_for(lambda: in_engine(served) == 1)
        if kind == "stream":
            assert wire.socket.recv(100)
    wait_for(lambda: ends(served, seed) == ["cancelled"], 10)
    assert in_engine(served) == 0


def test_a_stream_without_an_id_streams(port: int) -> None:
    with Wire(port) as wire:
        got = events(wire.send(stream(ASKED)).answer().body)
    assert len(got) > 10
    assert "".join(event["text_output"] for event in got) == TEXT + "bears"
    assert not any("id" in event for event in got)  # the engine knows one, and nobody else


def test_streams_of_one_id_at_once_are_never_mixed_up(port: int) -> None:
    def ask(word: str) -> str:
        with Wire(port) as wire:
            body = {**ASKED, "text_input": f"Tell me {word}", "id": "mine"}
            return text(wire.send(stream(body)).answer().body)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, WORDS)) == [TEXT + word for word in WORDS]


def test_an_id_is_exact_at_once_after_its_client_hung_up(port: int) -> None:
    for word in WORDS:
        with Wire(port) as wire:
            wire.send(stream({**ASKED, "text_input": "Tell me geese", "id": "again"}))
            assert wire.socket.recv(300)
        with Wire(port) as wire:
            body = {**ASKED, "text_input": f"Tell me {word}", "id": "again"}
            assert text(wire.send(stream(body)).answer().body) == TEXT + word


def test_a_request_is_stopped_by_who_started_it_and_by_nobody_else(
    served: Served, port: int
) -> None:
    """The second request has the first one's id and the secret that its client chose."""
    stop = {"id": "stop-me", "stop": True}
    others = [[], ["Trellis-Stop-Key: a-secret-of-another-client"]]
    with Wire(port) as wire, Wire(port) as second:
        wire.send(stream({**LONG, "id": "stop-me", "seed": 20_005}, KEY))
        wait_for(lambda: in_engine(served) == 1)
        for headers in others:
            answer = second.send(post(stop, *headers)).answer()
            assert (answer.status, json.loads(answer.body)["text_output"]) == (200, "")
        time.sleep(0.5)
        assert ends(served, 20_005) == []
        answer = second.send(post(stop, KEY)).answer()
        assert (answer.status, json.loads(answer.body)["id"]) == (200, "stop-me")
        assert wire.answer().status == 200
    assert ends(served, 20_005) == ["cancelled"]


def test_sixty_four_streams_at_once_are_those_of_triton(served: Served, port: int) -> None:
    def ask(job: tuple[int, int]) -> str:
        where, number = job
        with Wire(where, 60) as wire:
            word = WORDS[number % len(WORDS)]
            body = {
                **ASKED,
                "text_input": f"Tell me {word}",
                "id": f"{where}-{number}",
                "seed": 8000,
            }
            return text(wire.send(stream(body)).answer().body)

    expected = [TEXT + WORDS[number % len(WORDS)] for number in range(64)]
    with ThreadPoolExecutor(64) as pool:
        for where in (port, served.server.triton_port):
            assert list(pool.map(ask, [(where, n) for n in range(64)])) == expected


def test_a_reader_that_does_not_read_keeps_nobody_else_waiting(port: int) -> None:
    with Wire(port) as lazy:
        for _ in range(60):  # answers of 200 KB and more, of which none is read
            lazy.send(get(f"{ENSEMBLE}/config"))
        with Wire(port) as wire:
            assert text(wire.send(stream(ASKED)).answer().body) == TEXT + "bears"
        for _ in range(60):
            assert json.loads(lazy.answer().body)["name"] == "ensemble"


def test_a_thousand_streams_dropped_leave_nothing(served: Served, port: int) -> None:
    def drop(number: int) -> None:
        with Wire(port) as wire:
            wire.send(stream({**LONG, "seed": 2000}))
            if number % 3:
                wire.socket.settimeout(5)
                wire.socket.recv(50)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(drop, range(1000)))
    wait_for(lambda: in_engine(served) == 0, 60)
    with Wire(port) as wire:
        assert text(wire.send(stream(ASKED)).answer().body) == TEXT + "bears"


def test_triton_finishes_every_request_whose_client_hung_up(
    tmp_path: Path, standin_library: Path, llama_folder: Path
) -> None:
    """It never does when it learns of it itself, and then waits for them when it is stopped."""
    pace: dict[str, Any] = {"token_delay_us": "3000", "delay_from_seed": "true"}
    with serve("1.x", tmp_path, standin_library, llama_folder, [], **pace) as running:
        front = running.server.gateway
        assert front is not None
        before = descriptors(front.pid)

        def drop(number: int) -> None:
            with Wire(running.server.settings.http_port) as wire:
                wire.send((stream if number % 4 else post)({**LONG, "seed": 5000}))
                if number % 4:
                    assert wire.socket.recv(50)
                else:
                    time.sleep(0.3)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(drop, range(80)))
        wait_for(lambda: in_engine(running) == 0, 20)
        wait_for(lambda: descriptors(front.pid) <= before, 20)  # far less than DRAIN_SECONDS
        running.server.stop()
    said = (tmp_path / "triton.log").read_text(errors="replace")
    assert "Found 0 model versions that have in-flight inferences" in said
    assert stuck(said, 0) == []


@pytest.mark.parametrize(
    "body",
    [
        {**ASKED, "trellis_client": "a" * 22},
        {"text_input": "x", "parameters": {"max_tokens": 4, "trellis_client": "a" * 22}},
    ],
)
def test_a_client_cannot_set_its_own_token(port: int, body: dict[str, object]) -> None:
    escaped = json.dumps(body).replace("trellis_client", "trellis\\u005fclient").encode()
    for sent in (post(body), post(escaped)):
        with Wire(port) as wire:
            answer = wire.send(sent).answer()
        assert (answer.status, answer.error.split(":")[0]) == (400, "trellis_client")


def test_a_server_that_cannot_be_reached_is_a_503_that_says_so() -> None:
    (nobody,) = free_ports(1)
    with gateway(nobody, exit_timeout=1.0) as front:
        for request in (get(), post(ASKED)):
            with Wire(front.port) as wire:
                answer = wire.send(request).answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert "starting or stopping" in answer.error
        front.process.send_signal(signal.SIGTERM)
        assert front.process.wait(10) == 0


def test_a_gateway_that_is_asked_to_stop_finishes_what_is_in_flight(served: Served) -> None:
    """New requests are told so, and readiness says so, while it goes on."""
    behind, pid = served.server.triton_port, served.server.process.pid
    with gateway(behind, pid, 20.0) as front, Wire(front.port) as wire, Wire(front.port) as idle:
        wire.send(stream({**ASKED, "seed": 20_000}))
        assert idle.send(get()).answer().status == 200
        assert wire.socket.recv(10) == b"HTTP/1.1 2"
        front.process.send_signal(signal.SIGTERM)
        assert idle.closed()
        for request in (get(), post(ASKED)):
            with Wire(front.port) as late:
                answer = late.send(request).answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert answer.headers["connection"] == "close"
        with Wire(front.port) as late:
            assert late.send(get("/v2/health/live")).answer().status == 200
        assert b"bears" in wire.rest()
        assert front.process.wait(10) == 0
        assert not listens(front.port)


def test_what_is_cut_as_the_gateway_ends_gets_an_error(served: Served) -> None:
    behind, pid = served.server.triton_port, served.server.process.pid
    with gateway(behind, pid, 0.5) as front, Wire(front.port) as wire, Wire(front.port) as whole:
        wire.send(stream({**LONG, "seed": 20_006}))
        whole.send(post({**LONG, "seed": 20_007}))
        wait_for(lambda: in_engine(served) == 2)
        front.process.send_signal(signal.SIGTERM)
        assert "stopped before" in events(wire.answer().body)[-1]["error"]
        assert whole.answer().status in (502, 503)
        assert front.process.wait(10) == 0
    wait_for(lambda: in_engine(served) == 0)
