"""An HTTP server in Triton's place: streams that go on until they are stopped, by token or id."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trellis.ipc.disconnect_sender import PARAMETER, PURPOSE
from trellis.ipc.sockets import model_address

Json = dict[str, Any]
TEXT_INPUT = {"name": "text_input", "data_type": "TYPE_STRING", "dims": [1]}
TEXT_OUTPUT = {"name": "text_output", "data_type": "TYPE_STRING", "dims": [-1]}
STREAM = {"name": "stream", "data_type": "TYPE_BOOL", "dims": [1]}
STOP = {"name": "stop", "data_type": "TYPE_BOOL", "dims": [1]}


def ensemble(by_id: bool) -> dict[str, Json]:
    """The configurations of an ensemble; `by_id`: before TensorRT-LLM's own engine."""
    return {
        "ensemble": {
            "name": "ensemble",
            "platform": "ensemble",
            "input": [TEXT_INPUT, STREAM, *([STOP] if by_id else [])],
            "output": [TEXT_OUTPUT],
            "ensemble_scheduling": {"step": [{"model_name": "tensorrt_llm"}]},
        },
        "tensorrt_llm": {
            "name": "tensorrt_llm",
            "model_transaction_policy": {"decoupled": True},
            "backend": "tensorrtllm" if by_id else "python",
            "input": [],
            "output": [],
        },
    }


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: Json


class Stream:
    """A request that is answered until it is stopped."""

    def __init__(self, body: Json) -> None:
        self.token: str = body.get(PARAMETER, "")
        self.id: str = body.get("id", "")
        self.piece = body["text_input"].encode()
        self.stopped = threading.Event()
        self.sent = 0  # bytes
        self.over = False  # its answer was sent to its end, or the connection was lost


class FakeTriton:
    """Knows every request that came. Use as a context manager."""

    def __init__(self, by_id: bool = False, deaf_to: int = 0) -> None:
        """`deaf_to`: so many requests to stop another come too early, and stop nothing."""
        self.configs: dict[str, Json] = ensemble(by_id)
        self.gap = 0.02  # seconds between the pieces of a stream
        self.times = 1  # that a prompt is repeated in a piece
        self.requests: list[Asked] = []
        self.streams: list[Stream] = []
        self.stops: list[str] = []
        self.deaf_to = deaf_to
        self.breaks_off = False  # in its configurations
        self.ready = False  # whether it says so of everything; else it knows of no readiness
        self.error = ""  # that every request gets, as Triton says it
        triton = self

        class Handler(_Handler):
            owner = triton

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> "FakeTriton":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self.streams:
            stream.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def stop(self, request_id: str) -> None:
        """A request came that stops another."""
        self.stops.append(request_id)
        if len(self.stops) > self.deaf_to:
            for stream in self.streams:
                if stream.id == request_id:
                    stream.stopped.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A gateway that cuts an answer off is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is written in two parts
    owner: FakeTriton

    def _note(self, body: Json) -> None:
        asked = Asked(self.command, self.path, tuple(self.headers.items()), body)
        self.owner.requests.append(asked)

    def do_GET(self) -> None:
        self._note({})
        name = self.path.removeprefix("/v2/models/").removesuffix("/config")
        found = self.owner.configs.get(name)
        if self.owner.ready and self.path.endswith("/ready"):
            self._whole(200, b"")
            return
        if self.owner.breaks_off:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            self.close_connection = True
            return
        self._whole(200 if found else 404, json.dumps(found or {"error": "none"}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        self._note(body)
        if self.path.startswith("/v2/repository/"):
            self._whole(200, b"{}")
            return
        if self.owner.error:
            self._error(json.dumps({"error": self.owner.error}).encode())
            return
        if body.get("stop"):
            self.owner.stop(body["id"])
            self._whole(200, b"{}")
            return
        self.owner.streams.append(stream := Stream(body))
        with contextlib.suppress(OSError):
            self._stream(stream)
        stream.over = True

    def _error(self, body: bytes) -> None:
        """An error of a model's: of a stream in an event, with the status of a bad request."""
        events = self.path.endswith("_stream")
        body = b"data: %s\n\n" % body if events else body
        self.send_response(400)
        self.send_header("Content-Type", "text/event-stream" if events else "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def _stream(self, stream: Stream) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        event = b'data: {"text_output":"%s"}\n\n' % (stream.piece * self.owner.times)
        while not stream.stopped.wait(self.owner.gap):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            stream.sent += len(event)
        self.wfile.write(b"0\r\n\r\n")

    def _whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Host:
    """An engine host of this process: it hears which clients are gone, once it listens."""

    def __init__(self, model: str = "tensorrt_llm") -> None:
        self.address = model_address(PURPOSE, model, os.getpid())
        self.pid = os.getpid()
        self.heard: list[str] = []

    @contextlib.contextmanager
    def bound(self) -> Iterator[socket.socket]:
        """A socket that is there, and is not read."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(self.address)
            yield listener

    def fill(self) -> None:
        """No datagram more fits into the queue of the one that is bound."""
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
            contextlib.suppress(BlockingIOError),
        ):
            sender.setblocking(False)
            while True:
                sender.sendto(b"gone", self.address)

    def listen(self, listener: socket.socket, triton: FakeTriton, seconds: float) -> None:
        """Hear, and stop what is to be stopped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(TimeoutError):
                tokens = listener.recv(8192).decode().split()[1:]
                self.heard += tokens
                for stream in triton.streams:
                    if stream.token in tokens:
                        stream.stopped.set()
