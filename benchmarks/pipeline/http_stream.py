"""One HTTP connection that sends a prepared request and notes when which bytes came back.

Nothing is parsed while the clock runs but what shows that the response is over; `arrivals.py`
reads the rest afterwards. That keeps the load generator far below the server's own CPU.
"""

import re
import socket
import time

LAST_CHUNK = b"0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
Piece = tuple[float, bytes]  # seconds of time.perf_counter, bytes


class HttpStream:
    """A kept-alive connection; one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pieces: list[Piece] = []

    def start(self, request: bytes) -> None:
        """Send a whole request: request line, headers and body."""
        self.pieces = []
        self._tail = b""
        self._left: int | None = None  # bytes of a body of known length
        self.socket.sendall(request)

    def read(self) -> bool:
        """Take what has come, which is something; True at the response's end."""
        data = self.socket.recv(1 << 18)
        self.pieces.append((time.perf_counter(), data))
        if not data:
            raise ConnectionError("the server closed the connection")
        if len(self.pieces) == 1 and (length := LENGTH.search(data)):
            self._left = int(length[1]) + data.index(b"\r\n\r\n") + 4
        if self._left is not None:
            self._left -= len(data)
            return self._left <= 0
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        return self._tail == LAST_CHUNK


def post(path: str, body: bytes) -> bytes:
    """A request's bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
