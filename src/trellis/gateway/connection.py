# SPDX-License-Identifier: Apache-2.0
"""One client's connection: its requests one after another, each passed on or refused.

A client is gone when its connection is lost, or closed for sending while `/generate` or
`/generate_stream` works for it: the two cannot be told apart before something is sent, and nginx
and Go's servers take it so too. Any other answer is still delivered then.
"""

import asyncio
import logging
from collections import deque

from trellis.gateway import replies
from trellis.gateway.body import prepare
from trellis.gateway.doors import check_inner
from trellis.gateway.models import Model
from trellis.gateway.nesting import Nesting
from trellis.gateway.prepared import Prepared
from trellis.gateway.replies import JSON, Refusal
from trellis.gateway.requests import Request, RequestReader
from trellis.gateway.routes import Route
from trellis.gateway.settings import MAX_AHEAD_BYTES, STALL_SECONDS
from trellis.gateway.state import State
from trellis.gateway.upstream import Upstream
from trellis.pipeline.decode import failure

log = logging.getLogger("trellis.gateway")
LINGER_SECONDS = 2.0  # for a client to read a refusal while it still sends
AHEAD, UPLOAD, LOOKUP = "ahead", "upload", "lookup"  # why nothing is read from a client


class Connection(asyncio.Protocol):
    """A client and the connection to Triton behind it."""

    transport: asyncio.Transport

    def __init__(self, state: State) -> None:
        self._state = state
        self._reader = RequestReader()
        self._line: deque[Request] = deque()
        self._ahead = 0  # bytes sent before the answer to the first in line
        self._upstream: Upstream | None = None
        self._unsent: list[bytes] = []  # while the connection to Triton is being made
        self._task: asyncio.Task[None] | None = None  # what the first in line waits for
        self._held: set[str] = set()  # why nothing is read from the client
        self._token = ""
        self._last = False  # no request after those in line
        self._half_closed = False  # the client sends no more
        self._deaf = False  # what the client sends is thrown away
        self._behind = False  # the client reads more slowly than it is answered
        self.progress = state.now()  # when a request last went on

    # The client's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.transport = transport  # type: ignore[assignment]
        self._state.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """It sent something."""
        if self._deaf:
            return
        self.progress = self._state.now()
        if self._line and self._line[0].complete:
            self._ahead += len(data)
            self._hold(AHEAD, self._ahead > MAX_AHEAD_BYTES)
        self._line.extend(self._reader.feed(data))
        self._go_on()

    def eof_received(self) -> bool:
        """It sends no more; whether the connection stays open for an answer."""
        if self._deaf or self._reader.midway or not self._line:
            return False
        if any(request.model_path for request in self._line):
            begun = self._line[0].started
            self._leave()
            if not begun:
                self.transport.write(replies.half_closed().reply(keep_alive=False))
            return False
        self._last = self._half_closed = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._leave()
        self._state.connections.discard(self)

    def pause_writing(self) -> None:
        """It reads more slowly than Triton answers: Triton waits, for this client alone."""
        self._behind = True
        if self._upstream is not None:
            self._upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._behind = False
        if self._upstream is not None:
            self._upstream.transport.resume_reading()

    def _hold(self, why: str, hold: bool) -> None:
        held = bool(self._held)
        (self._held.add if hold else self._held.discard)(why)
        if bool(self._held) != held and not self.transport.is_closing():
            (self.transport.resume_reading if held else self.transport.pause_reading)()

    # Requests in line.

    @property
    def stalled(self) -> bool:
        """It waits for the rest of a request and for nothing else, or may be gone."""
        first = self._line[0] if self._line else None
        midway = self._reader.midway and not self._held and not (first and first.complete)
        return midway or self._half_closed

    def give_up(self, refusal: Refusal) -> None:
        """End a connection that does not go on."""
        begun = self._line and self._line[0].started
        if begun or self._deaf or self.transport.is_closing():
            self.transport.abort()
        else:
            self._refuse(refusal, keep_alive=False)

    def finish(self) -> None:
        """Take no further request: close once those in line are answered."""
        self._last = True
        if not self._line and not self._reader.midway:
            self._close()

    def _go_on(self) -> None:
        """Do what can be done for the first in line, and then for the next."""
        while self._line and not self._deaf and self._task is None:
            request = self._line[0]
            if request.refusal is None:
                self._step(request)
            if request.refusal is not None and not self._deaf:
                if request.begun:  # too late for another answer
                    self.transport.abort()
                    return
                self._refuse(request.refusal, request.keep_alive, request.method == b"HEAD")
                request.answered = True
            if not (request.answered and request.complete) or self._deaf:
                return
            self._done(request)

    def _step(self, request: Request) -> None:
        if request.begun or not request.asked_path:
            if not request.model_path:
                self._pass_on(request)
        elif request.model_path and not request.complete:
            if request.expects:
                request.expects = False
                self.transport.write(replies.CONTINUE)
        else:
            model = self._state.models.known(request.asked_path)
            if model is not None:
                self._let_in(request, model)
            else:
                self._hold(LOOKUP, not request.complete)
                self._task = self._state.loop.create_task(self._find_model(request))

    def _done(self, request: Request) -> None:
        self._line.popleft()
        if not request.model_path:
            self._state.models.heed(request.method, request.target)
        if request.text_answer is not None and request.text_answer.success_of:
            self._state.counts.add(request.text_answer.success_of)
        self._release(request)
        if len(self._line) <= 1:
            self._ahead = 0
            self._hold(AHEAD, False)
        if not request.keep_alive:
            self._linger()
        elif self._last and not self._line:
            self._close()

    async def _find_model(self, request: Request) -> None:
        try:
            model = await self._state.models.find(request.asked_path)
            self._task = None
            if not self._deaf:
                self._hold(LOOKUP, False)
                self._let_in(request, model)
        except Exception:  # in a task nobody hears of it, and the client would wait for ever
            log.exception("%s could not be asked", request.asked_path)
            self._task = None
            self._turn_down(request, replies.cut_off())
        if not self._deaf:
            self._go_on()

    def _let_in(self, request: Request, model: Model | Refusal) -> None:
        """Send what asks a model that clients may ask, and have all else refused."""
        try:
            if not self._state.exposes_inner_models:
                check_inner(model)
        except Refusal as refusal:
            refusal.close |= not request.complete
            self._turn_down(request, refusal)
            return
        if request.model_path:
            self._ask(request, model if isinstance(model, Model) else None)
        else:
            self._pass_on(request)

    def _ask(self, request: Request, model: Model | None) -> None:
        """Send the body if it is right, or else have it refused."""
        body = b"".join(request.body)
        request.body.clear()
        try:
            if model is not None and model.checked:
                self._token = self._token or self._state.new_token()
                _check_encoding(request)
                once = request.answer_type == JSON
                asked = prepare(model, body, self._token, self._state.ids, once)
                body, request.request_id = asked.body, asked.request_id
                request.token, request.stops_by_id = self._token, model.stops_by_id
                way = model.route
                if way is not None and way.fits(asked) and _is_plain(request):
                    self._ask_for_ids(request, asked, way)
                    return
            else:
                Nesting(request.headers).feed(body)
        except Refusal as refusal:
            self._turn_down(request, refusal)
            return
        self._send(request, request.head(len(body)) + body)

    def _ask_for_ids(self, request: Request, asked: Prepared, way: Route) -> None:
        """Have it answered past the plugins. A long prompt is encoded beside what else goes on."""
        if way.is_long(asked):
            self._task = self._state.loop.create_task(self._encode(request, asked, way))
        else:
            self._send_for_ids(
                request, asked, way, way.body(asked, request.token, request.answer_type)
            )

    async def _encode(self, request: Request, asked: Prepared, way: Route) -> None:
        loop, encoders = self._state.loop, self._state.encoders
        body = await loop.run_in_executor(
            encoders, way.body, asked, request.token, request.answer_type
        )
        self._task = None
        if not self._deaf:
            self._send_for_ids(request, asked, way, body)
            self._go_on()

    def _send_for_ids(
        self, request: Request, asked: Prepared, way: Route, body: bytes | Refusal | None
    ) -> None:
        """`body`: the engine's; None: the ensemble is asked."""
        if isinstance(body, Refusal):
            self._turn_down(request, body)
            return
        source = way.ensemble if body is None or way.engine is None else way.engine
        try:
            request.ask_for_ids(source, way.texts, asked)
        except Exception as error:  # of a tokenizer_type: this request's alone
            log.exception("no text can be made of tokens")
            self._turn_down(request, Refusal(500, failure(error)))
            return
        sent = body or asked.body
        self._send(request, request.head(len(sent)) + sent)

    def _turn_down(self, request: Request, refusal: Refusal) -> None:
        """Have it refused, instead of asked."""
        request.refusal = refusal
        self._release(request)

    def _pass_on(self, request: Request) -> None:
        """Send what has come of a request that is not looked at."""
        data = b""
        if not request.begun:
            self._state.models.heed(request.method, request.target)
            data = request.head()
        if request.body:
            body = b"".join(request.body)
            request.body.clear()
            data += replies.chunk(body) if request.chunked else body
        if request.complete and request.chunked:
            request.chunked = False
            data += replies.LAST_CHUNK
        if data:
            self._send(request, data)

    def _refuse(self, refusal: Refusal, keep_alive: bool, head_only: bool = False) -> None:
        keep_alive = keep_alive and not refusal.close
        self.transport.write(refusal.reply(keep_alive, head_only))
        if not keep_alive:
            self._linger()

    # Triton's side.

    def _send(self, request: Request, data: bytes) -> None:
        request.begun = True
        if self._upstream is not None:
            self._upstream.text_answer = request.text_answer
            self._upstream.transport.write(data)
            return
        self._unsent.append(data)
        if self._task is None:
            self._hold(UPLOAD, True)
            self._task = self._state.loop.create_task(self._connect(request))

    async def _connect(self, request: Request) -> None:
        try:
            _, upstream = await self._state.connect(self)
        except OSError:
            if not self._deaf:
                self._refuse(replies.unreachable(), keep_alive=False)
            return
        if self._deaf or self.transport.is_closing():
            upstream.close()
            return
        self._upstream, self._task = upstream, None
        if self._behind:  # with what another upstream sent, or with refusals
            upstream.transport.pause_reading()
        self._hold(UPLOAD, False)
        unsent, self._unsent = b"".join(self._unsent), []
        self._send(request, unsent)
        self._go_on()

    def answer_began(self) -> None:
        """The first bytes of an answer are there."""
        if self._line:
            self._line[0].started = True

    def answer_ended(self) -> None:
        """An answer is complete."""
        if self._line:
            self._line[0].answered = True
            self._go_on()

    def answer_failed(self) -> None:
        """A stream was ended with an error: have the engine end it too, and go on behind it."""
        first = self._line[0]
        self._stop(first)
        self._token = ""  # the engine takes it for one that left
        first.answered = True
        self._go_on()

    def upstream_lost(self) -> None:
        """Triton closed the connection: after an answer, or instead of one."""
        self._upstream = None
        if self._line and self._line[0].begun and not self._line[0].started:
            self._refuse(replies.cut_off(), keep_alive=False)
        else:
            self._close()

    def pause_uploading(self, full: bool) -> None:
        """Whether the buffer towards Triton is full."""
        self._hold(UPLOAD, full)

    # The end.

    def _leave(self) -> None:
        """Nothing more is asked for this client: have what is asked stopped."""
        self._deaf = True
        first = self._line[0] if self._line else None
        if first is not None and first.begun and not first.answered:
            self._stop(first)
        elif first is not None:
            self._release(first)
        self._line.clear()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    def _stop(self, request: Request) -> None:
        """Have the engine end it; the rest of its answer is nobody's."""
        upstream = None
        if request.token:  # it is stopped otherwise than by closing
            upstream, self._upstream = self._upstream, None
        self._state.gone(request, upstream)
        self._release(request, dropped=True)

    def _release(self, request: Request, dropped: bool = False) -> None:
        if request.request_id:
            self._state.ids.release(request.request_id, dropped)
            request.request_id = ""

    def _close(self) -> None:
        """Close once what was written is sent."""
        self._leave()
        self.transport.close()

    def _linger(self) -> None:
        """Close, but read on for a moment: a reset could take the answer from the client."""
        self._leave()
        if self.transport.is_closing():
            return
        self.transport.write_eof()
        if self._held:
            self._held.clear()
            self.transport.resume_reading()
        self.progress = self._state.now()
        unsent = self.transport.get_write_buffer_size()
        self._state.loop.call_later(LINGER_SECONDS, self._end_lingering, unsent)

    def _end_lingering(self, unsent: int) -> None:
        """End it a moment after the last byte was sent, or once the client takes no more."""
        left, now = self.transport.get_write_buffer_size(), self._state.now()
        if left < unsent:
            self.progress = now
        if unsent and self.progress > now - STALL_SECONDS:
            self._state.loop.call_later(LINGER_SECONDS, self._end_lingering, left)
        else:
            self.transport.abort()


def _is_plain(request: Request) -> bool:
    """Whether it asks for no version of a model, in an HTTP that has chunks."""
    return request.version == b"1.1" and b"/versions/" not in request.target


def _check_encoding(request: Request) -> None:
    if request.encoding:
        name = request.encoding.decode("latin-1")
        raise Refusal(415, f"Content-Encoding: {name}: send the JSON as it is")
