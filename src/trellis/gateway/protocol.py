# SPDX-License-Identifier: Apache-2.0
"""uvicorn's protocol, and what it leaves out: bounds on what one connection may take.

uvicorn frames, parses (llhttp), runs one task a request, and waits for slow readers. Added here:
the head is checked (heads.py); what is sent ahead of an answer waits unparsed; a refusal of HTTP
itself is JSON, in its turn; a client that sends no more while it is worked for is gone; a
connection is closed so that its last answer can still be read. Times are looked at by the server
once a second (`look`), without timers.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from trellis.gateway.heads import check_head, head_too_large
from trellis.gateway.openai.errors import as_openai, is_openai
from trellis.gateway.refusals import Refusal, half_closed
from trellis.gateway.sending import CERTIFIED, WRITE_NOW
from trellis.gateway.server_state import GatewayServerState

PIECE_BYTES = 4096  # parsed at once: so many bytes of requests are in line at most
BODY_PIECE_BYTES = 65_536
ENDLESS = 1 << 62
BEGIN_SECONDS = 1.0  # for a request of a new connection to come, as the server stops


class Cycle(RequestResponseCycle):
    """One request and its response; the protocol closes the connection, not the response."""

    protocol: "GatewayProtocol"
    started_at = 0.0
    unsized = False  # HTTP/1.0 has no chunks: the answer ends with the connection

    async def send(self, message: Any) -> None:
        """Send a message of ASGI's."""
        if not self.response_started:
            self._begin(message)
        elif not message.get("more_body", False):
            self.protocol.closes |= not self.keep_alive
            self.keep_alive = True  # else the transport were closed under an unread refusal
            if self.unsized:
                self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

    def write_now(self, data: bytes) -> bool:
        """Write a piece of a streamed body without waiting; False if the client is behind.

        What `send` does of it, for the one thing that is done for every token.
        """
        if self.flow.write_paused or self.disconnected or not self.chunked_encoding:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def _begin(self, message: Any) -> None:
        if self.more_body or self.protocol.server_state.draining:
            self.keep_alive = False  # what comes of the body is not read
        sized = any(name == b"content-length" for name, _ in message.get("headers", ()))
        if self.scope["http_version"] == "1.0" and not sized:
            self.unsized, self.chunked_encoding = True, False
            self.expected_content_length = ENDLESS

    def give_up(self) -> None:
        """Its client is gone."""
        self.disconnected = True
        self.message_event.set()


class Flow(FlowControl):
    """uvicorn's, which resumes reading whenever a request's body is asked for."""

    held = False  # nothing is read, whoever asks

    def resume_reading(self) -> None:
        """Read again, unless held."""
        if not self.held:
            super().resume_reading()


class GatewayProtocol(HttpToolsProtocol):
    """A client's connection."""

    server_state: GatewayServerState
    flow: Flow

    def __init__(
        self,
        config: Config,
        server_state: GatewayServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=False)
        self.limits = server_state.limits

        # Per-connection state
        self.address = ""
        self.certified = False  # whether its client has shown a certificate
        self.running: Cycle | None = None  # what is answered, or was answered last
        self.ahead = bytearray()  # sent before it is its turn
        self.url = b""  # of the request that was read last
        self.refusal: Refusal | None = None  # the last answer, once it is its turn
        self.closes = False  # once the present answer is complete
        self.half_closed = False  # the client sends no more
        self.deaf = False  # what the client sends is thrown away
        self.unsent = 0  # bytes that the client had not taken when it was last looked at
        self.progress = self.loop.time()  # when it last took some

        # Per-request state
        self.in_head = self.in_body = False
        self.is_head = False  # of the method HEAD
        self.raw_bytes = 0  # of the head, or of a body with its framing
        self.data_bytes = 0  # of the body
        self.since = self.loop.time()  # of the head, the body, or idleness

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self.address = self.client[0] if self.client else ""
        self.certified = bool(verified_certificate(transport))
        self.refusal = self.server_state.admit(self)
        if self.refusal is not None:
            self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, or was closed."""
        self.deaf = True
        self.server_state.forget(self)
        self.pipeline.clear()
        if self.running is not None and self.working:
            self.running.give_up()
        super().connection_lost(exc)
        self.running = self.cycle = None  # type: ignore[assignment]  # which hold this object

    def eof_received(self) -> bool:  # type: ignore[override]
        """It sends no more; whether the connection stays open for an answer.

        Who is done with sending while an engine works for it cannot be told from one that is gone.
        """
        if self.deaf or not self.working or self.running is None or self.in_head or self.in_body:
            return False
        self.half_closed = True
        cycles = [self.running, *(cycle for cycle, _ in self.pipeline)]
        if all(cycle.scope["method"] == "GET" for cycle in cycles):
            return True
        if not self.running.response_started:
            self.transport.write(half_closed().written())
        self.deaf = True
        self.running.give_up()
        return False

    def shutdown(self) -> None:
        """The server stops: no request after those in line, and one that may be on its way.

        Clients know that a connection that was idle may be gone; of a new one they do not.
        """
        if self.working and self.running is not None:
            self.running.keep_alive = False
        elif not (self.deaf or self.begins):
            self.transport.close()

    @property
    def working(self) -> bool:
        """Whether a request is being answered."""
        return self.running is not None and not self.running.response_complete

    @property
    def begins(self) -> bool:
        """Whether a request is about to come: some of its head has, or it will be the first."""
        awaited = self.in_head or (self.running is None and not self.deaf)
        return awaited and self.loop.time() - self.since < BEGIN_SECONDS

    # Bytes.

    def data_received(self, data: bytes) -> None:
        """The client sent something."""
        if self.deaf or self.refusal is not None:
            return
        if self.ahead or self._full:
            self._wait_with(data)
        else:
            self._parse(data)

    def _wait_with(self, data: bytes) -> None:
        """Keep what was sent ahead, and read no more if that is much."""
        self.ahead += data
        if len(self.ahead) > self.limits.ahead_bytes:
            self.flow.held = True
            self.flow.pause_reading()

    @property
    def _full(self) -> bool:
        """Whether what comes is of a request whose turn it is not."""
        return self.working and not (self.in_body and self.cycle is self.running)

    def _parse(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._full and not self.deaf and self.refusal is None:
            size = BODY_PIECE_BYTES if self.in_body else PIECE_BYTES
            self._feed(data[at : at + size])
            at += size
        if self.refusal is not None:
            if not self.working:
                self._refuse()
        elif at < len(data):
            self._wait_with(data[at:])

    def _feed(self, piece: bytes) -> None:
        began, before = self.in_head, self.in_body
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._fail(Refusal(400, "CONNECT and Upgrade: only HTTP/1.1 is spoken", close=True))
        except httptools.HttpParserError as error:
            self._fail(Refusal(400, f"not a valid HTTP/1.1 request: {error}", close=True))
        if (began and self.in_head) or (before and self.in_body):
            self.raw_bytes += len(piece)
        if self.in_head and self.raw_bytes > self.limits.head_bytes:
            self._fail(head_too_large(self.limits))
        if self.in_body and self.raw_bytes - self.data_bytes > self.limits.body_framing_bytes:
            self._fail(Refusal(400, "the body comes in too many small chunks", close=True))

    def _fail(self, refusal: Refusal) -> None:
        """Refuse the request that is being read, and all that would follow."""
        if self.refusal is not None:
            return
        self.refusal = refusal
        if self.in_body and self.running is not None and self.cycle is self.running:
            self._cut_short(self.running)

    def _cut_short(self, cycle: Cycle) -> None:
        """End a request whose body does not come as it should."""
        started, complete = cycle.response_started, cycle.response_complete
        cycle.give_up()
        if complete:
            return
        if started:  # too late for another answer
            self.transport.abort()
        else:
            cycle.response_complete = True
            self._refuse()

    def _refuse(self) -> None:
        """Write the refusal as the last answer."""
        refusal = self.refusal
        if refusal is not None and not self.deaf and not self.transport.is_closing():
            if is_openai(self.url.partition(b"?")[0].decode("latin-1")):
                refusal = as_openai(refusal)
            self.server_state.refused(refusal)
            self.transport.write(refusal.written(self.is_head))
            self._linger()

    def _linger(self) -> None:
        """Close for writing, and read on for a moment: a reset could take the answer away."""
        self.deaf, self.since = True, self.loop.time()
        self.ahead.clear()
        if self.transport.is_closing():
            return
        if self.half_closed:
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        elif not self.in_body and self.refusal is None:  # TLS, and nothing more is sent
            self.transport.close()
            return
        self.flow.held = False
        self.flow.resume_reading()

    # What httptools calls. Nothing may be raised here: it would not reach `_feed`.

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self.in_head, self.is_head, self.raw_bytes = True, False, 0
        self.since = self.loop.time()

    def on_headers_complete(self) -> None:
        """A head is there."""
        if self.refusal is not None or self.deaf:
            return
        method, version = self.parser.get_method(), self.parser.get_http_version()
        self.is_head = method == b"HEAD"
        try:
            path = check_head(method, version, self.url, self.headers, self.limits)
        except Refusal as refusal:
            self.refusal = refusal
            return
        scope: dict[str, Any] = {"method": method.decode(), "http_version": version}
        scope |= {"path": path.decode(), "raw_path": path, "query_string": b""}
        scope[CERTIFIED] = self.certified
        self.scope.update(scope)  # type: ignore[typeddict-item]
        self.in_head, self.in_body, self.raw_bytes, self.data_bytes = False, True, 0, 0
        self.since = self.loop.time()
        self.cycle = cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.protocol = self
        self.scope["extensions"] = {WRITE_NOW: {"write": cycle.write_now}}
        if self.working:
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._run(cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self.refusal is None and not self.deaf:
            self.data_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if self.refusal is None and not self.deaf:
            self.in_body = False
            self.server_state.busy(self)
            super().on_message_complete()

    # Answers.

    def _run(self, cycle: Any, app: Any) -> None:
        self.running = cycle
        cycle.started_at = self.loop.time()
        self._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is written: go on with the next request."""
        self.server_state.total_requests += 1
        if self.deaf or self.transport.is_closing():
            return
        if self.closes or (self.in_body and self.cycle is self.running):
            self._linger()
        elif self.pipeline:
            self._run(*self.pipeline.pop())
        elif self.refusal is not None:
            self._refuse()
        elif self.half_closed:
            self.transport.close()
        else:
            self.since = self.loop.time()
            self.server_state.idle(self)
            if self.ahead:
                self.loop.call_soon(self._parse_ahead)
            else:
                self.flow.resume_reading()

    def _parse_ahead(self) -> None:
        if not self.deaf and not self._full:
            data, self.ahead = bytes(self.ahead), bytearray()
            self.flow.held = False
            self._parse(data)
            if not self.transport.is_closing():
                self.flow.resume_reading()

    # Time.

    def resume_writing(self) -> None:
        """The client has taken most of what was written."""
        self.progress = self.loop.time()
        super().resume_writing()

    def look(self, now: float) -> None:
        """End it if it has taken too long; the server calls this once a second."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self.unsent:
            self.progress = now
        self.unsent = unsent
        limits = self.limits
        if now - self.progress > limits.unread_seconds:
            self.transport.abort()
        elif self.deaf or self.transport.is_closing():
            if not unsent and now - self.since > limits.linger_seconds:
                self.transport.abort()
        elif self.in_body and self.cycle is self.running:
            if now - self.since > limits.body_seconds:
                self._fail(_late("the body", limits.body_seconds))
        elif self.working and self.running is not None:
            if now - self.running.started_at > limits.request_seconds:
                self.transport.abort()
        elif self.in_head:
            if now - self.since > limits.head_seconds:
                self.refusal = _late("the head", limits.head_seconds)
                self._refuse()
        elif now - self.since > limits.idle_seconds:
            self.transport.abort() if unsent else self.transport.close()


def verified_certificate(transport: asyncio.BaseTransport) -> dict[str, Any]:
    """The certificate of a client, which TLS has verified; {} for none."""
    found = transport.get_extra_info("ssl_object")
    return (found.getpeercert() or {}) if found is not None else {}


def _late(what: str, seconds: float) -> Refusal:
    return Refusal(408, f"{what} of the request did not come in {seconds:.0f} s", close=True)
