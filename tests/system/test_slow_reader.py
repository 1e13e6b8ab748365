"""Clients that ask for streams and do not read them: others do not notice, and nothing is lost."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.grpc._utils import _get_inference_request

from support.asking import KOREAN, stream
from trellis.grpc_client import request_inputs
from trellis.server.process import Server

PROMPT = f"{KOREAN}\n" * 4
LONG = 400  # tokens of a stream that is not read
SHORT = 60  # tokens of the others'
READERS = 4
SLOW = 4
TINY_BUFFER = 4096
ASKED = {"max_tokens": LONG, "stream": True, "end_id": -1, "return_num_output_tokens": True}

Later = Callable[[], tuple[str, int]]  # reads, at last, all: the text, and its tokens by then


@contextmanager
def slow_http(server: Server) -> Iterator[Later]:
    """A stream over HTTP of which nothing is read until asked for."""
    body = {"text_input": PROMPT, **ASKED}
    data = json.dumps(body).encode()
    head = "POST /v2/models/ensemble/generate_stream HTTP/1.1\r\nHost: localhost\r\n"
    head += "Connection: close\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_BUFFER)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.settings.http_port))
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)

        def later() -> tuple[str, int]:
            events = b""
            while piece := connection.recv(1 << 16):
                events += piece
                if events.endswith(b"0\r\n\r\n"):
                    break
            lines = [line for line in events.split(b"\n") if line.startswith(b"data: ")]
            answers = [json.loads(line[6:]) for line in lines]
            texts = [answer["text_output"] for answer in answers]
            return "".join(texts), sum(answer["num_output_tokens"] for answer in answers)

        yield later


@contextmanager
def slow_grpc(server: Server) -> Iterator[Later]:
    """A stream over gRPC; its window is full after 64 KiB at the latest."""
    address = f"127.0.0.1:{server.settings.grpc_port}"
    inputs = request_inputs([PROMPT.encode()], ASKED)
    request = _get_inference_request(
        "ensemble", inputs, "", "", None, 0, False, False, 0, None, None
    )
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", TINY_BUFFER)]
    with grpc.insecure_channel(address, options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelStreamInfer(iter([request]))

        def later() -> tuple[str, int]:
            text, tokens = "", 0
            for answer in call:
                assert not answer.error_message
                outputs = _outputs(answer.infer_response)
                text += outputs.get("text_output", b"")[4:].decode()
                tokens += int.from_bytes(outputs.get("num_output_tokens", b""), "little")
            return text, tokens

        yield later
        call.cancel()


def _outputs(response: pb.ModelInferResponse) -> dict[str, bytes]:
    names = [output.name for output in response.outputs]
    return dict(zip(names, response.raw_output_contents, strict=True))


def seconds_of_readers(http: httpx.Client, expected: str) -> float:
    """How long some streams take that are read at once, every text as expected."""
    begin = time.monotonic()
    with ThreadPoolExecutor(READERS) as pool:
        for chunks in pool.map(
            lambda _: list(stream(http, PROMPT, max_tokens=SHORT)), range(READERS)
        ):
            assert len(chunks) > 5
            assert b"".join(chunks).decode().startswith(expected)
    return time.monotonic() - begin


@pytest.mark.promise("slow readers")
@pytest.mark.parametrize("slow", [slow_http, pytest.param(slow_grpc, marks=pytest.mark.slow)])
def test_streams_that_nobody_reads_hold_up_no_other_and_lose_nothing(
    server: Server, http: httpx.Client, slow: Callable[[Server], AbstractContextManager[Later]]
) -> None:
    # A pattern as strong as this says the same in whatever batch it runs.
    with ThreadPoolExecutor(SLOW) as pool:  # in the company of streams that are read
        read = [
            pool.submit(lambda: list(stream(http, PROMPT, max_tokens=LONG, end_id=-1)))
            for _ in range(SLOW)
        ]
        beside_readers = seconds_of_readers(http, KOREAN)
        shortest = min(len(b"".join(future.result()).decode()) for future in read)
    with ExitStack() as stack:
        later = [stack.enter_context(slow(server)) for _ in range(SLOW)]
        beside_slow = seconds_of_readers(http, KOREAN)
        time.sleep(1)
        found = [read_now() for read_now in later]
    assert beside_slow < 4 * beside_readers + 2
    for text, tokens in found:
        assert text.startswith(KOREAN)
        assert len(text) > shortest / 2  # the batch may change what follows
        assert tokens == LONG  # what is lost of a stream is its end
