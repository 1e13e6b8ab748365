# SPDX-License-Identifier: Apache-2.0
"""Answers that the gateway gives itself, in the form of Triton's: {"error": "..."}."""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

from trellis.errors import TrellisError

RETRY_AFTER = b"Retry-After: 1\r\n"  # seconds; added to every 503
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ESCAPE = re.compile(r"\\\\|\\u(00[01][0-9a-f])")
LAST_CHUNK = b"0\r\n\r\n"
JSON, EVENTS = b"application/json", b"text/event-stream; charset=utf-8"


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body; not for an empty one, which would be the last."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def quoted(text: str) -> bytes:
    """A string of JSON as Triton writes it: UTF-8, and escapes with capital digits.

    >>> quoted('é"' + chr(27)).decode()
    '"é\\\\"\\\\u001B"'
    """
    made = json.encoder.encode_basestring(text)
    if "\\u00" in made:
        made = _ESCAPE.sub(lambda found: f"\\u{found[1].upper()}" if found[1] else found[0], made)
    return made.encode("utf-8", "replace")


@dataclass(eq=False)
class Refusal(TrellisError):
    """Why a request is not passed on."""

    status: int
    message: str
    close: bool = False  # the connection cannot be used any further
    content_type: bytes = b""  # of the answer that Triton would have given, which this one equals

    def reply(self, keep_alive: bool, head_only: bool = False) -> bytes:
        """The whole response; to a HEAD, without its body."""
        body = json.dumps({"error": self.message}).encode()
        content_type, framing = JSON, b"Content-Length: %d" % len(body)
        if self.content_type:
            content_type, framing = self.content_type, b"Transfer-Encoding: chunked"
            body = b'{"error":%s}' % quoted(self.message)
            if content_type == EVENTS:
                body = b"data: %s\n\n" % body
            body = chunk(body) + LAST_CHUNK
        head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%s\r\n%s%s\r\n" % (
            self.status,
            HTTPStatus(self.status).phrase.encode(),
            content_type,
            framing,
            RETRY_AFTER if self.status == HTTPStatus.SERVICE_UNAVAILABLE else b"",
            b"" if keep_alive else b"Connection: close\r\n",
        )
        return head if head_only else head + body


def unreachable() -> Refusal:
    """The server behind does not take connections."""
    return Refusal(503, "the server is starting or stopping; try again", close=True)


def cut_off() -> Refusal:
    """The server behind closed its connection instead of answering."""
    return Refusal(502, "the server closed the connection without an answer", close=True)


def half_closed() -> Refusal:
    """A client that is done with sending cannot be told from one that is gone."""
    return Refusal(
        400,
        "the connection was closed for sending before the answer came, which counts as hanging"
        " up; keep it open until then",
        close=True,
    )
