# SPDX-License-Identifier: Apache-2.0
"""`/generate` and `/generate_stream`: from a client's JSON to Triton, and the answer back."""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from trellis.contract.client_inputs import LORA_NAME, PROMPT
from trellis.gateway.abandoned_requests import AbandonedClient
from trellis.gateway.access.keys import CALLER
from trellis.gateway.answers import EVENT, EVENT_END, Answer
from trellis.gateway.body import stop_body
from trellis.gateway.engine_requests import Written
from trellis.gateway.ids import RequestId, check_stop_key, new_id
from trellis.gateway.infer import InferRequest, infer_answer
from trellis.gateway.metrics.record import Record, record_of
from trellis.gateway.models import Model, check_inner, model_path
from trellis.gateway.outputs import Output
from trellis.gateway.prepared import Prepared
from trellis.gateway.reading import Sent, read_request
from trellis.gateway.refusals import EVENTS, JSON, Headers, Refusal
from trellis.gateway.request_body import Room, check_content_type, header, read_body
from trellis.gateway.routes import Route
from trellis.gateway.sending import (
    Client,
    Receive,
    Scope,
    Send,
    Write,
    client_of,
    send_whole,
    until_left,
)
from trellis.gateway.state import State
from trellis.gateway.step_channel import StepChannel
from trellis.gateway.step_text import StepText
from trellis.gateway.text_answers import Source, TextAnswer
from trellis.gateway.triton import ClientGone, TritonLost
from trellis.gateway.ways import StepWay, TritonWay, Upstream, Way
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


@dataclass(frozen=True)
class Target:
    """What is asked for a request, and what becomes of the answer."""

    path: str  # of a model of Triton's
    body: bytes
    answer: Answer
    channel: StepChannel | None = None  # that is asked instead
    prompt_tokens: int = 0  # 0: not known


@dataclass
class Pieces:
    """What a stream's client gets, written as it comes where the client keeps up."""

    answer: Answer
    write: Write
    left: bytes = b""  # to be sent with patience

    def take(self, data: Any) -> bool:
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
            await self._answered(scope, client_of(scope, receive, send), room)

    async def _answered(self, scope: Scope, client: Client, room: Room) -> None:
        check_content_type(scope["headers"], binary=self.by_infer)
        owner, record = owner_of(scope), record_of(scope)
        record.endpoint = "/infer" if self.by_infer else f"/{self._verb}"
        path = model_path(**scope["path_params"])
        model = await self._state.models.find(path)
        record.model = model.name
        if not self._state.settings.expose_inner_models:
            check_inner(model)
        limit = self._state.limits.body_limit(model.context)
        body = await read_body(client.receive, scope["headers"], limit, room)
        asked, finish = await self._read(model, scope["headers"], body)
        if asked.stops:
            await self._stop(path, model, owner, asked, finish, client.send)
            return
        client.allowance.reserve(asked.tokens)
        with self._state.in_flight.noted(owner, asked.request_id):
            record.adapter = adapter_of(self._state, model, asked)
            if self._state.settings.log_prompts:
                record.prompt = str(asked.values.get(PROMPT, ""))
            await self._answer(path, model, asked, finish, client, record)

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
        inner_ids, lost = await self._state.inner_ids(owner, shown)
        for inner_id in inner_ids or [asked.request_id.inner]:
            request_id = RequestId(inner_id, shown)
            stop = asked._replace(body=stop_body(inner_id), request_id=request_id)
            target = await self._route(path, model, stop)
            asked_path = f"{target.path}/{self._verb}"
            try:
                reply = await self._state.triton.ask("POST", asked_path, target.body)
            except TritonLost as error:
                raise error.refusal from error
            target.answer.begin(reply.status, reply.content_type)
            whole = finish(*_made(target.answer, reply.body))
        if lost is not None:
            raise Refusal(503, f"{lost}; ask again", retry_after=1)
        await send_whole(send, whole.status, whole.headers, whole.body)

    async def _answer(
        self,
        path: str,
        model: Model,
        asked: Prepared,
        finish: Finish,
        client: Client,
        record: Record,
    ) -> None:
        with record.timed("encode"):
            target = await self._route(path, model, asked)
        answer, record.prompt_tokens = target.answer, target.prompt_tokens
        answer.meter = self._state.registry.meter(record)
        way = self._way(target, path, model, asked, record)
        upstream = await _open(way)
        self._state.upstreams.add(upstream)
        watch = asyncio.create_task(_watch(client.receive, upstream))
        complete = False
        try:
            complete = await self._pass_on(upstream, answer, finish, client, watch)
        finally:
            watch.cancel()
            record.failed = answer.failed or answer.refused or answer.cut
            self._state.upstreams.discard(upstream)
            way.close(upstream, complete)
        for name in answer.success_of:
            self._state.counts.add(model.counted_by, name)

    def _way(self, target: Target, path: str, model: Model, asked: Prepared, record: Record) -> Way:
        if target.channel is not None:
            return StepWay(target.channel, target.body, self._type, target.answer.meter)
        stop_path = f"{path}/generate" if model.stops_by_id else ""
        asked_path, inner_id = f"{target.path}/{self._verb}", asked.request_id.inner
        triton, abandoned = self._state.triton, self._state.abandoned
        client = AbandonedClient(inner_id, model.engines, stop_path)
        parent = record.traceparent
        return TritonWay(triton, abandoned, asked_path, target.body, client, parent)

    async def _route(self, path: str, model: Model, asked: Prepared) -> Target:
        """What is asked, with which body, and what becomes of its answer."""
        route = model.route
        if route is None or not route.fits(asked) or "/versions/" in path:
            return Target(path, asked.body, Answer(asked.request_id))
        made = await engine_body(self._state, route, asked, self._type)
        if isinstance(made, Refusal):
            raise made
        body, tokens = (None, 0) if made is None else (made.body, made.tokens)
        try:
            if body is not None and route.engine is not None and route.has_steps:
                channel = await self._state.steps.find(route.engine.model)
                if channel is not None:
                    text = _step_text(route.engine, channel, route, asked)
                    return Target("", body, text, channel, tokens)
            source = route.ensemble if body is None or route.engine is None else route.engine
            if source is None:
                return Target(path, asked.body, Answer(asked.request_id))
            request_id, skip = asked.request_id, asked.skip_special_tokens
            answer = TextAnswer(source, route.texts, request_id, skip, asked.streams)
        except Exception as error:  # of a tokenizer_type: this request's alone
            log.error("no text can be made of tokens: %s", error)
            raise Refusal(500, failure(error)) from None
        path = f"/v2/models/{source.model}"
        return Target(path, body or asked.body, answer, prompt_tokens=tokens)

    async def _pass_on(
        self,
        upstream: Upstream,
        answer: Answer,
        finish: Finish,
        client: Client,
        watch: "asyncio.Task[None]",
    ) -> bool:
        """Send an answer as it comes; whether all of it was read."""
        started, send = False, client.send
        try:
            await upstream.head()
            answer.begin(upstream.status, upstream.content_type)
            if not answer.streams or answer.status != 200:  # an error says in its event what it is
                piece = await upstream.whole(self._state.limits.answer_bytes)
                whole = finish(*_made(answer, piece))
                watch.cancel()
                await send_whole(send, whole.status, whole.headers, whole.body)
                return True
            started = True
            await send(_start(answer.status))
            pieces = Pieces(answer, client.write)
            while not await upstream.pass_to(pieces.take):
                await send({"type": "http.response.body", "body": pieces.left, "more_body": True})
                if answer.failed:
                    break
            watch.cancel()
            await send({"type": "http.response.body", "body": answer.end(), "more_body": False})
            return not answer.failed
        except TritonLost as error:
            if not started:
                raise error.refusal from error
            answer.cut = True
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


async def _open(way: Way) -> Upstream:
    try:
        return await way.open()
    except TritonLost as error:
        raise error.refusal from error


def _step_text(engine: Source, channel: StepChannel, route: Route, asked: Prepared) -> StepText:
    request_id, skip = asked.request_id, asked.skip_special_tokens
    return StepText(engine, channel.version, route.texts, request_id, skip)


async def engine_body(
    state: State, route: Route, asked: Prepared, answer_type: bytes
) -> Written | Refusal | None:
    """See Route.body; a long prompt is encoded by a thread, beside what else goes on."""
    if not route.is_long(asked):
        return route.body(asked, answer_type)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(state.encoders, route.body, asked, answer_type)


def adapter_of(state: State, model: Model, asked: Prepared) -> str:
    """The LoRA adapter that is asked for, if the model has it."""
    value = asked.values.get(LORA_NAME)
    made = state.models.made().get(model.name)
    name = value[0] if isinstance(value, list) and value else value
    return name if made is not None and name in made.lora_adapters else ""


def _made(answer: Answer, piece: Any) -> tuple[int, bytes, bytes]:
    """Status, type and body for the client, of all that the engine answered."""
    made = answer.feed(piece) + answer.end()
    return answer.status_of(made), answer.content_type, made


def _start(status: int) -> dict[str, object]:
    headers = [(b"content-type", EVENTS)]
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _watch(receive: Receive, upstream: Upstream) -> None:
    """Wait for the client to leave, and for nobody to wait for the answer then."""
    await until_left(receive)
    upstream.interrupt(ClientGone())


def owner_of(scope: Scope) -> str:
    """What only whoever sent this request can say again: its stop key, or its connection.

    Two API keys are never of one owner.
    """
    key = header(scope["headers"], STOP_KEY)
    if key:
        check_stop_key(key)
        return f"key {key} {scope.get(CALLER, '')}"
    return f"connection {scope['client']} {scope.get(CALLER, '')}"
