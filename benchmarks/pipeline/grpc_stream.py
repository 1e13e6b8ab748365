"""One gRPC connection, as `http_stream.py` is one of HTTP: frames are walked, nothing is parsed.

grpcio costs a client more CPU a message than Triton's floor costs the server, and would be what is
measured on a small machine. This speaks the few frames of HTTP/2 that a call needs, and no more:
requests are small, the window for responses is as large as can be, headers are not compressed.
"""

import socket
import struct
import time

from http_stream import Piece

PATH = b"/inference.GRPCInferenceService/ModelStreamInfer"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGEST_WINDOW = (1 << 31) - 1
FIRST_WINDOW = (1 << 16) - 1
MAX_REQUEST = 16_000  # one frame, and well within the server's first window


class GrpcStream:
    """A connection; each request is a call of its own, closed by the client at once."""

    def __init__(self, host: str, port: int, key: str = "") -> None:
        """`key`: an API key that each call is made with."""
        self.socket = socket.create_connection((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pieces: list[Piece] = []
        self._rest = b""
        self._call = -1
        self._headers = b"".join(
            _literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", PATH),
                (b":authority", b"bench"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                *([(b"x-api-key", key.encode())] if key else []),
            )
        )
        window = struct.pack(">HI", 4, LARGEST_WINDOW)
        more = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        self.socket.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + _frame(SETTINGS, 0, 0, window)
            + _frame(WINDOW, 0, 0, more)
        )

    def start(self, request: bytes) -> None:
        """Send one serialized ModelInferRequest. Raises ValueError if it is too large."""
        if len(request) > MAX_REQUEST:
            raise ValueError(f"{len(request)} bytes: a gRPC request has at most {MAX_REQUEST} here")
        self.pieces = []
        self._call += 2
        message = b"\0" + struct.pack(">I", len(request)) + request
        self.socket.sendall(
            _frame(HEADERS, END_HEADERS, self._call, self._headers)
            + _frame(DATA, END_STREAM, self._call, message)
        )

    def read(self) -> bool:
        """Take what has come; True when the call is over. Pieces hold the calls' data alone."""
        received = self.socket.recv(1 << 18)
        now = time.perf_counter()
        if not received:
            raise ConnectionError("the server closed the connection")
        buffer = self._rest + received
        at, ended = 0, False
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at - 9 < length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            payload = buffer[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == DATA:
                self.pieces.append((now, payload))
            ended |= kind == HEADERS and bool(flags & END_STREAM)
            if kind > HEADERS:
                self._control(kind, flags, payload)
        self._rest = buffer[at:]
        return ended

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind in (SETTINGS, PING) and not flags & ACK:
            answer = payload if kind == PING else b""
            self.socket.sendall(_frame(kind, ACK, 0, answer))
        elif kind in (RESET, GOAWAY):
            raise ConnectionError(f"the server ended the call: frame {kind}, {payload!r}")


def _frame(kind: int, flags: int, call: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, call) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field in HPACK's plainest form: not indexed, not compressed, under 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
