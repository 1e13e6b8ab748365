# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 requests, parsed strictly: what the server behind reads is what was checked here.

httptools (llhttp) parses; heads are written anew from what it found, so that no two readings of
one request are possible.
"""

from dataclasses import dataclass, field

import httptools
from httptools.parser.errors import HttpParserError, HttpParserUpgrade

from trellis.gateway.doors import asked_path, check_upgrade, origin_form, with_own_type
from trellis.gateway.models import route
from trellis.gateway.nesting import Nesting
from trellis.gateway.prepared import Prepared
from trellis.gateway.replies import EVENTS, JSON, Refusal
from trellis.gateway.settings import MAX_BODY_BYTES, MAX_HEAD_BYTES
from trellis.gateway.text_answers import Source, TextAnswer
from trellis.pipeline.decode import Detokenizer

Header = tuple[bytes, bytes]
# Written anew for a request whose body was read whole.
OF_THE_BODY = frozenset((b"content-length", b"transfer-encoding", b"expect", b"trailer"))


@dataclass(eq=False, slots=True)
class Request:
    """One request of a connection, and how far it and its answer have come."""

    target: bytes = b""
    method: bytes = b""
    version: bytes = b"1.1"
    headers: list[Header] = field(default_factory=list)
    asked_path: str = ""  # set if it asks a model: /v2/models/NAME[/versions/N]
    model_path: str = ""  # the same, if its body is to be checked
    chunked: bool = False
    encoding: bytes = b""  # Content-Encoding, if it is not identity
    expects: bool = False  # waits for 100 Continue
    keep_alive: bool = True
    body: list[bytes] = field(default_factory=list)  # what is not yet passed on
    size: int = 0  # bytes of the body so far
    headed: bool = False  # the head has come
    complete: bool = False  # and the body
    nesting: Nesting | None = None  # of a body that is passed on as it comes
    refusal: Refusal | None = None
    begun: bool = False  # something of it was passed on
    started: bool = False  # something of its answer came
    answered: bool = False  # all of it
    token: str = ""  # the client's, if the engine was given it
    request_id: str = ""  # held while it is in flight
    stops_by_id: bool = False  # the engine ends it by a request of the same id
    text_answer: TextAnswer | None = None  # makes text of the ids that it is answered with

    @property
    def answer_type(self) -> bytes:
        """The content type of Triton's answer."""
        path = self.target.partition(b"?")[0]
        return EVENTS if path.endswith(b"/generate_stream") else JSON

    def ask_for_ids(self, source: Source, texts: Detokenizer, asked: Prepared) -> None:
        """Have a model answer that gives ids, of which the gateway makes text."""
        place = self.target.index(b"/v2/models/") + len(b"/v2/models/")
        end = self.target.index(b"/", place)
        self.target = b"%s%s%s" % (self.target[:place], source.model.encode(), self.target[end:])
        self.text_answer = TextAnswer(source, texts, asked.skip_special_tokens, asked.streams)

    def head(self, length: int | None = None) -> bytes:
        """The head as it is passed on; with the length of a body that was read whole."""
        lines = [b"%s %s HTTP/%s" % (self.method, self.target, self.version)]
        headers = with_own_type(self.target, self.headers)
        if length is not None:
            headers = [pair for pair in headers if pair[0].lower() not in OF_THE_BODY]
            lines.append(b"Content-Length: %d" % length)
        lines += [b"%s: %s" % pair for pair in headers]
        return b"\r\n".join(lines) + b"\r\n\r\n"


class RequestReader:
    """Makes requests of a client's bytes."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._begun: list[Request] = []
        self._head_bytes = 0  # of a head that takes several reads, but for the first
        self._new = False  # it began in this read
        self._closed = False  # nothing after this is read
        self.midway = False  # a request has begun and is not complete

    def feed(self, data: bytes) -> list[Request]:
        """Read on; the requests whose heads have come, which fill up as their bodies come.

        What is wrong becomes a request with a refusal, the last of its connection.
        """
        while data and not self._closed:
            rest, self._new = b"", False
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as upgrade:  # not done here: what follows is HTTP again
                rest = data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            except HttpParserError as error:
                self._fail(Refusal(400, f"not a valid HTTP/1.1 request: {error}", close=True))
            if self.midway and not self._request.headed and not self._new:
                self._head_bytes += len(data)
                if self._head_bytes > MAX_HEAD_BYTES:
                    self._fail(_head_too_large())
            data = rest
        begun, self._begun = self._begun, []
        return begun

    def _fail(self, refusal: Refusal) -> None:
        if self._closed:
            return
        self._closed = True
        self.midway = False
        if self._request.complete:
            self._request = Request()
        request = self._request
        request.complete, request.refusal, request.keep_alive = True, refusal, False
        request.body.clear()
        if not request.headed:
            self._begun.append(request)

    # What httptools calls. Nothing may be raised here: it would not reach `feed`.

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._request = Request()
        self._head_bytes, self._new = 0, True
        self.midway = not self._closed

    def on_url(self, part: bytes) -> None:
        """A piece of the target."""
        self._request.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are dropped."""
        if not self._request.headed:
            self._request.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there: decide how the body is framed and what is done with it."""
        request = self._request
        if self._closed:
            return
        request.method = self._parser.get_method()
        request.version = self._parser.get_http_version().encode()
        request.keep_alive = self._parser.should_keep_alive()
        try:
            length = _framing(request)
            check_upgrade(request.headers)
            request.target = origin_form(request.target)
            request.asked_path = asked_path(request.target)
            request.model_path = route(request.method, request.target)
            if request.model_path and length > MAX_BODY_BYTES:
                raise _body_too_large()
            if not request.model_path and length:
                request.nesting = Nesting(request.headers)
        except Refusal as refusal:
            self._fail(refusal)
            return
        request.headed = True
        self._begun.append(request)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        request = self._request
        if self._closed:
            return
        request.size += len(data)
        if request.model_path and request.size > MAX_BODY_BYTES:
            self._fail(_body_too_large())
            return
        if request.nesting is not None:
            try:
                request.nesting.feed(data)
            except Refusal as refusal:
                self._fail(refusal)
                return
        request.body.append(data)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._closed:
            return
        self.midway = False
        self._closed = not self._request.keep_alive
        self._request.complete = True


def _framing(request: Request) -> int:
    """How long the body is, -1 if that is not said. Raises Refusal for what has two readings."""
    if request.version not in (b"1.0", b"1.1"):
        raise Refusal(505, f"HTTP/{request.version.decode()}: use HTTP/1.1", close=True)
    if request.method == b"CONNECT":
        raise Refusal(405, "CONNECT: this is no proxy", close=True)
    if request.method == b"HEAD":  # Triton's answer has a body, which no client expects
        raise Refusal(405, "HEAD: use GET", close=True)
    lengths, encodings, head_bytes = [], [], len(request.target)
    for name, value in request.headers:
        head_bytes += len(name) + len(value)
        lowered = name.lower()
        if lowered == b"content-length":
            lengths.append(value)
        elif lowered == b"transfer-encoding":
            encodings.append(value.lower())
        elif lowered == b"content-encoding" and value.lower() != b"identity":
            request.encoding = value
        elif lowered == b"expect":
            request.expects = value.lower() == b"100-continue"
    if head_bytes > MAX_HEAD_BYTES:
        raise _head_too_large()
    if len(lengths) + len(encodings) > 1:
        raise Refusal(400, "Content-Length and Transfer-Encoding: send one of them", close=True)
    if encodings and (encodings != [b"chunked"] or request.version == b"1.0"):
        raise Refusal(400, "Transfer-Encoding: only chunked is understood", close=True)
    request.chunked = bool(encodings)
    return int(lengths[0]) if lengths else -1


def _head_too_large() -> Refusal:
    return Refusal(431, f"the request's head is larger than {MAX_HEAD_BYTES} bytes", close=True)


def _body_too_large() -> Refusal:
    return Refusal(413, f"the body is larger than {MAX_BODY_BYTES} bytes", close=True)
