# SPDX-License-Identifier: Apache-2.0
"""The connection to Triton behind one client's: its bytes go to the client as they come.

Answers are parsed only to know where they end. That of a client that left is read to its end all
the same: Triton 24.10 never finishes a request of an ensemble that is cancelled between two steps.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools
from httptools.parser.errors import HttpParserError

from trellis.gateway.replies import RETRY_AFTER
from trellis.gateway.text_answers import TextAnswer

UNAVAILABLE = b"HTTP/1.1 503"
# Triton answers every error of a model with 400; this one is not the client's fault.
BAD_REQUEST = b"HTTP/1.1 400"
OVERLOADED = b"', the server is overloaded: "
MAX_HELD_BYTES = 65536


class Client(Protocol):
    """Who an upstream answers to."""

    transport: asyncio.Transport

    def answer_began(self) -> None:
        """The first bytes of an answer are there."""

    def answer_ended(self) -> None:
        """An answer is complete."""

    def answer_failed(self) -> None:
        """A stream was ended with an error, though its engine goes on."""

    def upstream_lost(self) -> None:
        """Triton closed the connection, or sent what is no HTTP."""

    def pause_uploading(self, full: bool) -> None:
        """Whether the buffer towards Triton is full."""


class Upstream(asyncio.Protocol):
    """One connection to Triton."""

    transport: asyncio.Transport

    def __init__(self, client: Client) -> None:
        self._client: Client | None = client
        self._parser = httptools.HttpResponseParser(self)
        self._at_start = True
        self._ended = False
        self._held: list[bytes] | None = None  # an answer of 400, until what it says is known
        self._drained: Callable[[Upstream], None] | None = None  # nobody is there to answer to
        self.text_answer: TextAnswer | None = None  # writes the present answer anew

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = transport  # type: ignore[assignment]

    def close(self) -> None:
        """The client is gone, or done: hear no more of this connection."""
        self._client = None
        self.transport.abort()

    def drain(self, drained: Callable[["Upstream"], None]) -> None:
        """The client is gone: throw the rest of the answer away, then close and say so."""
        self._client, self._held, self._drained = None, None, drained
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass a piece of an answer on."""
        client = self._client
        if client is None:
            self._throw_away(data)
            return
        try:
            data = self._parse(data)
        except HttpParserError:
            self.close()
            client.upstream_lost()
            return
        if data:
            self._write(client, data)
        if self._held and (self._ended or sum(map(len, self._held)) > MAX_HELD_BYTES):
            client.transport.write(_unavailable(b"".join(self._held)))
            self._held = None
        if self._ended:
            self._ended, self._at_start, self.text_answer = False, True, None
            client.answer_ended()
        elif self.text_answer is not None and self.text_answer.failed:
            client.answer_failed()

    def _parse(self, data: bytes) -> bytes:
        """Look for the end of the answer; what of it goes to the client."""
        if self.text_answer is None:
            self._parser.feed_data(data)
            return data
        data = self.text_answer.feed(data)
        self._ended = self.text_answer.ended
        return data

    def _write(self, client: Client, data: bytes) -> None:
        if self._at_start:
            self._at_start = False
            client.answer_began()
            if data.startswith(BAD_REQUEST):
                self._held = []
            if data.startswith(UNAVAILABLE):
                data = _retry_after(data)
        if self._held is None:
            client.transport.write(data)
        else:
            self._held.append(data)

    def _throw_away(self, data: bytes) -> None:
        try:
            self._parse(data)
        except HttpParserError:
            self._ended = True
        if self._ended:
            self.transport.abort()

    def on_message_complete(self) -> None:
        """For httptools: the end, unless more is announced by it."""
        self._ended = self._parser.get_status_code() >= 200

    def pause_writing(self) -> None:
        """For asyncio: Triton reads more slowly than the client sends."""
        if self._client is not None:
            self._client.pause_uploading(True)

    def resume_writing(self) -> None:
        """For asyncio: it has caught up."""
        if self._client is not None:
            self._client.pause_uploading(False)

    def connection_lost(self, error: Exception | None) -> None:
        """For asyncio: closed from the other side."""
        client, self._client = self._client, None
        if client is not None:
            client.upstream_lost()
        if self._drained is not None:
            self._drained(self)


def _unavailable(answer: bytes) -> bytes:
    """An answer of 400 as it is, or with 503 if it says that there is too much to do."""
    if OVERLOADED not in answer:
        return answer
    return _retry_after(UNAVAILABLE + b" Service Unavailable\r\n" + answer.partition(b"\r\n")[2])


def _retry_after(answer: bytes) -> bytes:
    line, end, rest = answer.partition(b"\r\n")
    return line + end + (RETRY_AFTER if end else b"") + rest
