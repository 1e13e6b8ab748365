"""Raw HTTP for tests of the gateway: bytes out, and the answers read by the standard library."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENSEMBLE = "/v2/models/ensemble"


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The message of an error."""
        message: str = json.loads(self.body)["error"]
        return message


class Wire:
    """A connection that sends what it is told. Use as a context manager."""

    def __init__(self, port: int, seconds: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> "Wire":
        self.socket.sendall(data)
        return self

    def answer(self, method: str = "GET") -> Answer:
        """The next response, and nothing of what follows it."""
        response = http.client.HTTPResponse(_Unbuffered(self.socket), method=method)  # type: ignore[arg-type]
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def rest(self) -> bytes:
        """All until the other side closes."""
        data = b""
        while more := self.socket.recv(65536):
            data += more
        return data

    def closed(self) -> bool:
        """Whether the other side closes without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


class _Unbuffered:
    """A socket whose file reads a byte at a time, so that the next response is left alone."""

    def __init__(self, source: socket.socket) -> None:
        self._source = source

    def makefile(self, _mode: str) -> Any:
        return _OneByOne(self._source)


class _OneByOne:
    def __init__(self, source: socket.socket) -> None:
        self._source = source

    def read(self, count: int = -1) -> bytes:
        data = b""
        while count < 0 or len(data) < count:
            more = self._source.recv(1 if count < 0 else count - len(data))
            if not more:
                break
            data += more
        return data

    def readline(self, limit: int = -1) -> bytes:
        line = b""
        while not line.endswith(b"\n") and (limit < 0 or len(line) < limit):
            more = self._source.recv(1)
            if not more:
                break
            line += more
        return line

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def get(target: str = "/v2/health/ready", *headers: str, version: str = "1.1") -> bytes:
    """A GET as bytes."""
    lines = [f"GET {target} HTTP/{version}", "Host: localhost", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def post(
    body: bytes | dict[str, Any],
    *headers: str,
    target: str = f"{ENSEMBLE}/generate",
    version: str = "1.1",
) -> bytes:
    """A POST as bytes, with its length."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {target} HTTP/{version}", "Host: localhost", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


def stream(body: dict[str, Any], *headers: str) -> bytes:
    """A POST to /generate_stream."""
    return post({"stream": True, **body}, *headers, target=f"{ENSEMBLE}/generate_stream")


def events(body: bytes) -> list[dict[str, Any]]:
    """The objects of an event stream."""
    return [json.loads(line[6:]) for line in body.split(b"\n\n") if line]


def text(body: bytes) -> str:
    """The text of an event stream."""
    return "".join(event["text_output"] for event in events(body))


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Fail unless it comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Data in pieces of so many bytes."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
