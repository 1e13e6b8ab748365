# SPDX-License-Identifier: Apache-2.0
"""Answers that the gateway gives itself, in the form of Triton's: {"error": "..."}."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from trellis.errors import TrellisError

RETRY_AFTER = (b"retry-after", b"1")  # seconds; with every 503, and each 429 that has no other
CLOSE = (b"connection", b"close")
JSON, EVENTS = b"application/json", b"text/event-stream; charset=utf-8"
SHOWN = 64  # characters at most of what a client sent
_ESCAPE = re.compile(r"\\\\|\\u(00[01][0-9a-f])")
# Line ends to some readers of event streams, and none to others.
_LINE_ENDS = (
    (b"\xe2\x80\xa8", rb"\u2028"),
    (b"\xe2\x80\xa9", rb"\u2029"),
    (b"\xc2\x85", rb"\u0085"),
)

Headers = list[tuple[bytes, bytes]]


def quoted(text: str) -> bytes:
    """A string of JSON as Triton writes it: UTF-8, and escapes with capital digits.

    >>> quoted('é"' + chr(27)).decode()
    '"é\\\\"\\\\u001B"'
    """
    made = json.encoder.encode_basestring(text)
    if "\\u00" in made:
        made = _ESCAPE.sub(lambda found: f"\\u{found[1].upper()}" if found[1] else found[0], made)
    return made.encode("utf-8", "replace")


def one_line(data: bytes) -> bytes:
    """JSON in which no character is a line end to anybody.

    >>> one_line('"a\u2028b"'.encode())
    b'"a\\\\u2028b"'
    """
    for character, escape in _LINE_ENDS:
        if character in data:
            data = data.replace(character, escape)
    return data


def shown(text: str) -> str:
    """What a client sent, as far as an error repeats it.

    >>> len(shown("x" * 100))
    64
    """
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


@dataclass(eq=False)
class Refusal(TrellisError):
    """Why a request is not passed on."""

    status: int
    message: str
    close: bool = False  # the connection cannot be used any further
    content_type: bytes = b""  # of the answer that Triton would have given, which this one equals
    allow: str = ""  # the methods that there are, with a 405
    code: str | None = None  # of an error in OpenAI's form
    retry_after: int = 1  # seconds, with a 503 or 429

    def body(self) -> bytes:
        """The bytes of the answer."""
        if not self.content_type:
            return json.dumps({"error": self.message}).encode()
        body = b'{"error":%s}' % quoted(self.message)
        return b"data: %s\n\n" % one_line(body) if self.content_type == EVENTS else body

    def headers(self, length: int) -> Headers:
        """Those of the answer, with a body of so many bytes."""
        made = [(b"content-type", self.content_type or JSON), (b"content-length", b"%d" % length)]
        if self.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            made.append((b"retry-after", b"%d" % self.retry_after))
        if self.status == HTTPStatus.UNAUTHORIZED:
            made.append((b"www-authenticate", b"Bearer"))
        if self.allow:
            made.append((b"allow", self.allow.encode()))
        if self.close:
            made.append(CLOSE)
        return made

    def written(self, head_only: bool = False) -> bytes:
        """The whole response, after which the connection is closed; to a HEAD without its body."""
        body = self.body()
        headers = [pair for pair in self.headers(len(body)) if pair != CLOSE] + [CLOSE]
        head = b"HTTP/1.1 %d %s\r\n" % (self.status, HTTPStatus(self.status).phrase.encode())
        return head + _lines(headers) + b"\r\n" + (b"" if head_only else body)


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%s: %s\r\n" % pair for pair in headers)


def unreachable() -> Refusal:
    """The server behind does not take connections."""
    return Refusal(503, "the server is starting or stopping; try again", close=True)


def stopping() -> Refusal:
    """This server was asked to stop."""
    return Refusal(503, "the server is stopping; send it to another, or later", close=True)


def restarting() -> Refusal:
    """What is behind failed, and is started anew."""
    return Refusal(503, "the server failed and is being started anew; try again later", close=True)


def hanging(what: str) -> Refusal:
    """A part of the server makes no progress, and the launcher is about to end it."""
    return Refusal(503, f"the server hangs and is being ended: {what}", close=True)


def cut_off() -> Refusal:
    """The server behind closed its connection instead of answering."""
    return Refusal(502, "the server closed the connection without an answer", close=True)


def too_late(seconds: float) -> Refusal:
    """The server behind takes longer than it may."""
    return Refusal(503, f"no answer in {seconds:.0f} s; try again later", close=True)


def too_large(size: int) -> Refusal:
    """The server behind answers more than is read whole."""
    return Refusal(502, f"the answer has more than {size} bytes; ask for less", close=True)


def half_closed() -> Refusal:
    """A client that is done with sending cannot be told from one that is gone."""
    return Refusal(
        400,
        "the connection was closed for sending before the answer came, which counts as hanging"
        " up; keep it open until then",
        close=True,
    )
