# SPDX-License-Identifier: Apache-2.0
"""One `ModelStreamInfer`: its requests go to engines' step sockets where they can, else to Triton.

The answers of all go to the client as they come. A client that does not read holds up nobody: what
is for it waits where it was made.
"""

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, MutableMapping
from typing import Any

from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelStreamInferResponse

from trellis.contract.client_inputs import PROMPT
from trellis.gateway.access.grpc_requests import GrpcRequest, is_stop
from trellis.gateway.access.grpc_tensors import StepTensors, read_tensors
from trellis.gateway.generate import adapter_of, engine_body
from trellis.gateway.ids import new_id
from trellis.gateway.metrics.observed import observed
from trellis.gateway.metrics.record import Record
from trellis.gateway.models import Model, model_path
from trellis.gateway.prepared import Prepared
from trellis.gateway.refusals import EVENTS, JSON, Refusal
from trellis.gateway.state import State
from trellis.gateway.step_channel import StepChannel
from trellis.gateway.triton import TritonLost

UNSENT = 64  # messages that wait for a client to read; what is beyond waits where it was made
RUNNING = 256  # requests of a stream at once; a further one waits unread
ENDPOINT = "/ModelStreamInfer"
log = logging.getLogger("trellis.gateway")
Passed = Callable[[AsyncIterator[bytes]], Any]
Check = Callable[[bytes], Coroutine[Any, Any, GrpcRequest]]


class GrpcStream:
    """Requests and answers of one client."""

    def __init__(
        self, state: State, pass_on: Passed, owner: str, scope: MutableMapping[str, Any]
    ) -> None:
        """`pass_on`: asks Triton; `owner`: who alone may stop these; `scope`: for the log."""
        self._state = state
        self._pass_on = pass_on
        self._owner = owner
        self._scope = scope
        self._out: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._for_triton: asyncio.Queue[bytes] | None = None  # b"": the last has been sent
        self._hidden: Counter[str] = Counter()  # ids of stops whose answers are not the client's
        self._refused: Refusal | None = None
        self._failed: BaseException | None = None

    async def answers(
        self, sent: AsyncIterator[bytes], check: Check
    ) -> AsyncGenerator[bytes, None]:
        """The messages for the client. `check` reads a request, or raises Refusal, which ends it.

        Raises Refusal once what was asked before is answered, and what asking Triton raises.
        """
        self._start(self._read(sent, check))
        try:
            while True:
                while self._out:
                    data = self._out.popleft()
                    self._taken.set()
                    yield data
                if self._failed is not None or not self._running:
                    break
                self._changed.clear()
                await self._changed.wait()
        finally:
            for task in self._running:
                task.cancel()
        error = self._failed or self._refused
        if error is not None:
            raise error

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and self._failed is None:
            self._failed = task.exception()
        self._changed.set()
        self._taken.set()

    def _put(self, data: bytes) -> bool:
        """Have it sent; whether the client is not behind."""
        self._out.append(data)
        self._changed.set()
        return len(self._out) < UNSENT

    async def _room(self, running: float = math.inf) -> None:
        """Wait until the client has read, and no more than so many tasks run."""
        while len(self._out) >= UNSENT or len(self._running) > running:
            self._taken.clear()
            await self._taken.wait()

    async def _read(self, sent: AsyncIterator[bytes], check: Check) -> None:
        try:
            async for data in sent:
                request = (await check(data)).asked
                if is_stop(request):
                    await self._stop(request, data)
                    continue
                await self._room(RUNNING)
                if not await self._short(request, len(data)):
                    await self._pass(data)
        except Refusal as refusal:
            self._refused = refusal
        if self._for_triton is not None:
            await self._for_triton.put(b"")

    # By Triton.

    async def _pass(self, data: bytes) -> None:
        if self._for_triton is None:
            self._for_triton = asyncio.Queue(1)  # a message may be large
            self._start(self._from_triton(self._for_triton))
        await self._for_triton.put(data)

    async def _from_triton(self, queue: "asyncio.Queue[bytes]") -> None:
        over = False

        async def requests() -> AsyncIterator[bytes]:
            nonlocal over
            while data := await queue.get():
                yield data
            over = True

        call = self._pass_on(requests())
        try:
            async for piece in call:
                await self._room()
                if self._is_shown(piece):
                    self._put(piece)
        finally:
            call.cancel()
        if not over:
            raise Refusal(503, "Triton ended the stream; ask again", retry_after=1)

    async def _stop(self, request: ModelInferRequest, data: bytes) -> None:
        """End this key's requests of an id: by what the engine knows them by, and by itself."""
        found = self._state.inner_ids(self._owner, request.id) if request.id else None
        inner_ids, lost = ([], None) if found is None else await found
        for inner_id in inner_ids:
            self._hidden[inner_id] += 1
            request.id = inner_id
            await self._pass(request.SerializeToString())
        if lost is not None:
            raise Refusal(503, f"{lost}; ask again", retry_after=1)
        await self._pass(data)

    def _is_shown(self, piece: bytes) -> bool:
        """Whether an answer of Triton's is the client's."""
        if not self._hidden:
            return True
        answered = ModelStreamInferResponse.FromString(piece).infer_response.id
        if answered not in self._hidden:
            return True
        self._hidden -= Counter([answered])
        return False

    # By a step socket.

    async def _short(self, request: ModelInferRequest, size: int) -> bool:
        """Ask the engine itself; False if that is not possible."""
        record = Record(request.id)
        try:
            target = await self._target(request, size, record)
        except Refusal:  # of a model that cannot be asked now
            return False
        if target is None:
            return False
        self._start(self._answered(*target, record))
        return True

    async def _target(
        self, request: ModelInferRequest, size: int, record: Record
    ) -> tuple[Model, StepTensors, StepChannel, Prepared, bytes] | None:
        """Where a request goes, with which body, and what makes its answer; None: to Triton."""
        state = self._state
        if size > state.limits.parse_here_bytes or state.draining or state.server.hung:
            return None
        model = await state.models.find(model_path(request.model_name))
        route = model.route
        if route is None or route.engine is None or not route.has_steps:
            return None
        asked = read_tensors(model, request, new_id(), state.limits)
        if asked is None or not route.fits(asked.prepared):
            return None
        with record.timed("encode"):
            made = await engine_body(state, route, asked.prepared, JSON)
        if made is None or isinstance(made, Refusal):  # which Triton tells, too
            return None
        channel = await state.steps.find(route.engine.model)
        if channel is None:
            return None
        record.prompt_tokens = made.tokens
        prepared = asked.prepared
        try:
            answer = StepTensors(
                route.engine,
                channel,
                route.texts,
                prepared.request_id,
                prepared.skip_special_tokens,
                asked.outputs,
            )
        except Exception as error:  # of a tokenizer_type: this request's alone
            log.error("no text can be made of tokens: %s", error)
            return None
        return model, answer, channel, prepared, made.body

    async def _answered(
        self,
        model: Model,
        answer: StepTensors,
        channel: StepChannel,
        prepared: Prepared,
        body: bytes,
        record: Record,
    ) -> None:
        state = self._state
        record.endpoint, record.model = ENDPOINT, model.name
        record.adapter = adapter_of(state, model, prepared)
        if state.settings.log_prompts:
            record.prompt = str(prepared.values.get(PROMPT, ""))
        hooks = (state.registry, state.begun, state.ended)
        with observed(*hooks, self._scope, record):
            try:
                with state.in_flight.noted(self._owner, prepared.request_id):
                    await self._follow(model, answer, channel, body, record)
            except asyncio.CancelledError:
                record.left = self._failed is None
                raise
            finally:
                record.failed = answer.failed or answer.refused or answer.cut

    async def _follow(
        self, model: Model, answer: StepTensors, channel: StepChannel, body: bytes, record: Record
    ) -> None:
        """Pass an answer on as it comes."""

        def take(event: Any) -> bool:
            return self._put(answer.feed(event)) and not answer.failed

        def lost(error: TritonLost) -> None:
            record.status = record.status or error.refusal.status
            self._put(answer.lost(str(error)))

        complete, meter = False, self._state.registry.meter(record)
        try:
            exchange = channel.open(body, EVENTS, meter)
        except TritonLost as error:
            lost(error)
            return
        self._state.upstreams.add(exchange)
        try:
            await exchange.head()
            record.status = exchange.status
            answer.begin(exchange.status, EVENTS)
            while not (complete := await exchange.pass_to(take)) and not answer.failed:
                await self._room()
        except TritonLost as error:
            lost(error)
        finally:
            self._state.upstreams.discard(exchange)
            channel.close(exchange, complete)
        if complete:
            answer.end()
            for name in answer.success_of:
                self._state.counts.add(model.counted_by, name)
