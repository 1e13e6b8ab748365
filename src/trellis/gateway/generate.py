# SPDX-License-Identifier: Apache-2.0
"""`/generate` and `/generate_stream`: from a client's JSON to Triton, and the answer back."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from trellis.gateway.answers import EVENT, EVENT_END, Answer
from trellis.gateway.body import stop_body
from trellis.gateway.ids import RequestId, check_stop_key, new_id
from trellis.gateway.infer import InferRequest, infer_answer
from trellis.gateway.models import Model, check_inner, model_path
from trellis.gateway.outputs import Output
from trellis.gateway.prepared import Prepared
from trellis.gateway.reading import Sent, read_request
from trellis.gateway.refusals import EVENTS, JSON, Headers, Refusal, cut_off, unreachable
from trellis.gateway.request_body import Room, check_content_type, header, read_body
from trellis.gateway.sending import Client, Receive, Scope, Send, Write, send_whole, write_now
from trellis.gateway.state import State
from trellis.gateway.text_answers import TextAnswer
from trellis.gateway.triton import ClientGone, CutOff, Exchange, TritonLost, read_whole
from trellis.pipeline.decode import failure

log = logging.getLogger("trellis.gateway")
STOP_KEY = b"trellis-stop-key"


@dataclass(frozen=True)
class Whole:
    """A whole answer as its client gets it."""

    status: int
    headers: Headers  # its type
    body: bytes


def as_generated(status: int, content_type: bytes, body: bytes) -> Whole:
    """An answer as Triton's `/generate` has it."""
    return Whole(status, [(b"content-type", content_type)], body)


Finish = Callable[[int, bytes, bytes], Whole]


@dataclass
class Pieces:
    """What a stream's client gets, written as it comes where the client keeps up."""

    answer: Answer
    write: Write
    left: bytes = b""  # to be sent with patience

    def take(self, data: bytes) -> bool:
        """Take a piece of the engine's answer; False if something is left, or it has failed."""
        out = self.answer.feed(data)
        if self.answer.failed or (out and not self.write(out)):
            self.left = out
            return False
        return True


class Generate:
    """The two endpoints, an ASGI application each."""

    by_infer = False  # whether it is asked in KServe's form

    def __init__(self, state: State, verb: str) -> None:
        """`verb`: generate or generate_stream."""
        self._state = state
        self._verb = verb
        self._type = EVENTS if verb == "generate_stream" else JSON

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Refusal, ClientGone."""
        with self._state.bodies.room() as room:
            await self._answered(scope, Client(receive, send, write_now(scope)), room)

    async def _answered(self, scope: Scope, client: Client, room: Room) -> None:
        check_content_type(scope["headers"], binary=self.by_infer)
        owner = owner_of(scope)
        path = model_path(**scope["path_params"])
        model = await self._state.models.find(path)
        if not self._state.settings.expose_inner_models:
            check_inner(model)
        limit = self._state.limits.body_limit(model.context)
        body = await read_body(client.receive, scope["headers"], limit, room)
        asked, finish = await self._read(model, scope["headers"], body)
        if asked.stops:
            await self._stop(path, model, owner, asked, finish, client.send)
            return
        with self._state.in_flight.noted(owner, asked.request_id):
            await self._answer(path, model, asked, finish, client)

    async def _read(self, model: Model, headers: Headers, body: bytes) -> tuple[Prepared, Finish]:
        """What is asked, and what makes the client's answer of Triton's. Raises Refusal.

        A large body is read by a process of its own, while others are served.
        """
        sent = Sent(headers, body, new_id(), self._type == JSON, self.by_infer)
        if len(body) <= self._state.limits.parse_here_bytes:
            made = read_request(model, sent, self._state.limits)
        else:
            made = await self._state.parser.read(model, sent)
        if made.infer is None:
            return made.asked, as_generated
        return made.asked, partial(_as_inferred, made.infer, model.outputs)

    async def _stop(
        self,
        path: str,
        model: Model,
        owner: str,
        asked: Prepared,
        finish: Finish,
        send: Send,
    ) -> None:
        """End this owner's requests of an id; where there are none, the answer is the same."""
        shown = asked.request_id.client
        inner_ids = self._state.in_flight.started_by(owner, shown) or [asked.request_id.inner]
        for inner_id in inner_ids:
            request_id = RequestId(inner_id, shown)
            stop = asked._replace(body=stop_body(inner_id), request_id=request_id)
            asked_path, body, answer = await self._route(path, model, stop)
            try:
                reply = await self._state.triton.ask("POST", f"{asked_path}/{self._verb}", body)
            except TritonLost:
                raise unreachable() from None
            answer.begin(reply.status, reply.content_type)
            whole = finish(*_made(answer, reply.body))
        await send_whole(send, whole.status, whole.headers, whole.body)

    async def _answer(
        self, path: str, model: Model, asked: Prepared, finish: Finish, client: Client
    ) -> None:
        asked_path, body, answer = await self._route(path, model, asked)
        exchange = await self._open(f"{asked_path}/{self._verb}", body)
        self._state.exchanges.add(exchange)
        watch = asyncio.create_task(_watch(client.receive, exchange))
        complete = False
        try:
            complete = await self._pass_on(exchange, answer, finish, client, watch)
        finally:
            watch.cancel()
            self._state.exchanges.discard(exchange)
            if complete:
                self._state.triton.release(exchange)
            else:
                stop_path = f"{path}/generate" if model.stops_by_id else ""
                self._state.abandoned.add(exchange, asked.request_id.inner, stop_path)
        if answer.success_of:
            self._state.counts.add(answer.success_of)

    async def _route(self, path: str, model: Model, asked: Prepared) -> tuple[str, bytes, Answer]:
        """The model that is asked, with which body, and what becomes of its answer.

        A long prompt is encoded by a thread, beside what else goes on.
        """
        route = model.route
        if route is None or not route.fits(asked) or "/versions/" in path:
            return path, asked.body, Answer(asked.request_id)
        if route.is_long(asked):
            loop, encoders = asyncio.get_running_loop(), self._state.encoders
            body = await loop.run_in_executor(encoders, route.body, asked, self._type)
        else:
            body = route.body(asked, self._type)
        if isinstance(body, Refusal):
            raise body
        source = route.ensemble if body is None or route.engine is None else route.engine
        try:
            answer = TextAnswer(
                source, route.texts, asked.request_id, asked.skip_special_tokens, asked.streams
            )
        except Exception as error:  # of a tokenizer_type: this request's alone
            log.error("no text can be made of tokens: %s", error)
            raise Refusal(500, failure(error)) from None
        return f"/v2/models/{source.model}", body or asked.body, answer

    async def _open(self, path: str, body: bytes) -> Exchange:
        try:
            return await self._state.triton.open("POST", path, body)
        except TritonLost:
            raise unreachable() from None

    async def _pass_on(
        self,
        exchange: Exchange,
        answer: Answer,
        finish: Finish,
        client: Client,
        watch: "asyncio.Task[None]",
    ) -> bool:
        """Send an answer as it comes; whether all of it was read."""
        started, send = False, client.send
        try:
            await exchange.head()
            answer.begin(exchange.status, exchange.content_type)
            if not answer.streams or answer.status != 200:  # an error says in its event what it is
                body = await read_whole(exchange, self._state.limits.answer_bytes)
                whole = finish(*_made(answer, body))
                watch.cancel()
                await send_whole(send, whole.status, whole.headers, whole.body)
                return True
            started = True
            await send(_start(answer.status))
            pieces = Pieces(answer, client.write)
            while not await exchange.pass_to(pieces.take):
                await send({"type": "http.response.body", "body": pieces.left, "more_body": True})
                if answer.failed:
                    break
            watch.cancel()
            await send({"type": "http.response.body", "body": answer.end(), "more_body": False})
            return not answer.failed
        except TritonLost as error:
            if not started:
                stopped = isinstance(error, CutOff)
                refusal = Refusal(503, str(error), close=True) if stopped else cut_off()
                raise refusal from error
            event = EVENT + json.dumps({"error": str(error)}).encode() + EVENT_END
            watch.cancel()
            await send({"type": "http.response.body", "body": event, "more_body": False})
            return False


class Infer(Generate):
    """`/infer`: what `/generate` answers, in KServe's form (infer.py)."""

    by_infer = True

    def __init__(self, state: State) -> None:
        super().__init__(state, "generate")


def _as_inferred(
    request: InferRequest,
    outputs: Mapping[str, Output],
    status: int,
    content_type: bytes,
    body: bytes,
) -> Whole:
    if status != 200:
        return as_generated(status, content_type, body)
    return Whole(status, *infer_answer(request, outputs, body))


def _made(answer: Answer, body: bytes) -> tuple[int, bytes, bytes]:
    """Status, type and body for the client, of all that Triton answered."""
    made = answer.feed(body) + answer.end()
    return answer.status_of(made), answer.content_type, made


def _start(status: int) -> dict[str, object]:
    headers = [(b"content-type", EVENTS)]
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _watch(receive: Receive, exchange: Exchange) -> None:
    """Wait for the client to leave, and for nobody to wait for the answer then."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.interrupt(ClientGone())


def owner_of(scope: Scope) -> str:
    """What only whoever sent this request can say again: its stop key, or its connection."""
    key = header(scope["headers"], STOP_KEY)
    if key:
        check_stop_key(key)
        return f"key {key}"
    return f"connection {scope['client']}"
