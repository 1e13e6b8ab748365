# SPDX-License-Identifier: Apache-2.0
"""Asks engines for the sequences of one request, and gives their pieces to whoever writes them.

A request has a sequence for each prompt and each of `n`; each is a request of its own to the
engine. If one fails, or the client leaves, the others are ended, too.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from trellis.contract.client_inputs import GUIDE_TYPE, MAX_TOKENS
from trellis.gateway.abandoned_requests import AbandonedClient
from trellis.gateway.engine_requests import Written
from trellis.gateway.metrics.record import Record
from trellis.gateway.openai.asking import Inputs, LogProbs, without_steps, write
from trellis.gateway.openai.choices import Choice, Piece, Usage
from trellis.gateway.openai.engine_events import EventReader, StepEvents, TritonEvents
from trellis.gateway.openai.errors import Names, OpenAIError, as_openai, bad, rejected
from trellis.gateway.openai.jobs import Flow, Gathering, Job, Prompt, Writer
from trellis.gateway.openai.parsing import PLAIN_TEXT, Parsing
from trellis.gateway.openai.served import Served
from trellis.gateway.refusals import EVENTS, JSON, Refusal, one_line
from trellis.gateway.sending import Client, Receive, send_whole, until_left
from trellis.gateway.state import State
from trellis.gateway.step_channel import STATUS, StepChannel
from trellis.gateway.triton import ClientGone, TritonLost
from trellis.gateway.ways import StepWay, TritonWay, Way

USAGE = {"return_total_tokens": True, "return_cached_tokens": True}
INLINE_TOKENS = 4096  # of prompts that are written without a thread
OPENED_AT_ONCE = 16  # sequences of a request
log = logging.getLogger("trellis.gateway")


class Generation:
    """The sequences of one request."""

    def __init__(self, state: State, served: Served, record: Record) -> None:
        self._record = record
        self._state = state
        self._served = served
        self._names: Names = {}  # as the endpoint's fields are called
        self._jobs: list[Job] = []
        self._prompt_tokens = 0
        self._used = Usage()  # of its sequences together: a chunk may tell it, and there are many
        self._most = 0  # tokens of all its answers

    async def prepare(
        self,
        prompts: Sequence[Prompt],
        n: int,
        inputs: Inputs,
        log_probs: LogProbs,
        streams: bool,
        parsing: Parsing = PLAIN_TEXT,
    ) -> None:
        """Make the requests for the engine. Raises OpenAIError."""
        count, most = len(prompts) * n, self._state.limits.sequences
        if count > most:
            if n == 1:
                raise bad("prompt", f"{count} prompts; send at most {most} (sequences)")
            what = f"{count} sequences with {len(prompts)} prompts; send at most {most} (sequences)"
            raise bad("n", what)
        served, route = self._served, self._served.route
        channel = await self._state.steps.find(served.engine.model) if route.has_steps else None
        in_pieces = streams or self._may_be_cut(inputs, parsing, channel)
        if in_pieces:
            inputs.in_pieces()
        more = without_steps(served, inputs) if channel is None else {**inputs.more, **USAGE}
        self._names = inputs.names
        self._prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        self._record.prompt_tokens = self._prompt_tokens
        self._record.sequences = n
        if self._state.settings.log_prompts:
            self._record.prompt = "\n".join(prompt.text or str(prompt.ids) for prompt in prompts)
        self._most = count * int(inputs.values[MAX_TOKENS])
        skip = inputs.values.get("skip_special_tokens")

        def work() -> list[tuple[str, Written]]:
            return [
                write(served, inputs, prompt.ids, number, more)
                for prompt in prompts
                for number in range(n)
            ]

        # Much JSON, and guides, which are translated here for the C++ backend: others are served
        # meanwhile.
        if self._prompt_tokens * n > INLINE_TOKENS or GUIDE_TYPE in inputs.values:
            loop = asyncio.get_running_loop()
            requests = await loop.run_in_executor(self._state.encoders, work)
        else:
            requests = work()
        for index, (inner_id, made) in enumerate(requests):
            prompt = prompts[index // n]
            text = parsing.text(route.texts, served.tokenizer, skip)
            choice = Choice(
                index,
                text,
                served.tokenizer,
                prompt.ids,
                log_probs.answer,
                parsing.parser(),
                parsing.reasons,
                self._used,
                first=index % n == 0,
                one_call=parsing.one_call,
            )
            meter = self._state.registry.meter(self._record)
            if channel is not None:
                way: Way = StepWay(channel, made.body, JSON, meter)
                reader: EventReader = StepEvents()
            else:
                way = self._by_triton(made.body, inner_id, in_pieces)
                reader = TritonEvents(
                    served.engine.ensemble,
                    route.texts,
                    inner_id,
                    made.counted,
                    meter,
                    inputs.matcher(served),
                )
            self._jobs.append(Job(way, reader, choice, meter, in_pieces))

    def _may_be_cut(self, inputs: Inputs, parsing: Parsing, channel: StepChannel | None) -> bool:
        """Whether the gateway may end an answer before the engine does, which is told then."""
        can = channel is not None or bool(self._served.model.engines)
        return can and (bool(inputs.stops) or parsing.one_call)

    def _by_triton(self, body: bytes, inner_id: str, in_pieces: bool) -> Way:
        model, state = self._served.model, self._state
        verb = "generate_stream" if in_pieces else "generate"
        path = f"/v2/models/{self._served.engine.model}/{verb}"
        stop_path = f"/v2/models/{model.name}/generate" if model.stops_by_id else ""
        client = AbandonedClient(inner_id, model.engines, stop_path)
        parent = self._record.traceparent
        return TritonWay(state.triton, state.abandoned, path, body, client, parent)

    def usage(self) -> Usage:
        """The tokens so far."""
        return replace(self._used, prompt=self._prompt_tokens)

    async def run(self, client: Client, writer: Writer, streams: bool) -> None:
        """Ask, and answer. Raises Refusal, ClientGone."""
        watch: asyncio.Task[None] | None = None
        try:
            client.allowance.reserve(self._prompt_tokens + self._most)
        except Refusal as refusal:
            raise as_openai(refusal, self._names) from None
        try:
            for number, job in enumerate(self._jobs, 1):
                await job.open()
                self._state.upstreams.add(job.upstream)
                if number % OPENED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others are served meanwhile
            watch = asyncio.create_task(self._watch(client.receive))
            if streams:
                await self._stream(client, writer)
            else:
                pieces = await self._gather([self._whole(job) for job in self._jobs])
                body = writer.whole([job.choice for job in self._jobs], pieces, self.usage())
                watch.cancel()
                await send_whole(client.send, 200, [(b"content-type", JSON)], body)
        finally:
            if watch is not None:
                watch.cancel()
            self._close()
            usage = self.usage()
            client.allowance.settle(usage.prompt + usage.completion)

    def _close(self) -> None:
        for job in self._jobs:
            if job.opened:
                self._state.upstreams.discard(job.upstream)
                job.way.close(job.upstream, job.complete)
            if job.choice.finish is not None and (job.complete or not job.opened):
                for name in (self._served.engine.ensemble, self._served.engine.model):
                    self._state.counts.add(self._served.model.counted_by, name)

    def _leave(self, job: Job) -> None:
        """Have the engine told that the rest of a sequence is not wanted."""
        self._state.upstreams.discard(job.upstream)
        job.way.close(job.upstream, complete=False)
        job.opened = False
        job.meter.finish = "stop"

    async def _watch(self, receive: Receive) -> None:
        await until_left(receive)
        for job in self._jobs:
            if job.opened:
                job.upstream.interrupt(ClientGone())

    async def _gather(self, works: Sequence[Any]) -> list[Any]:
        """All results; the first failure ends the others. Raises Refusal, ClientGone."""
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            return await asyncio.gather(*tasks)
        except TritonLost as error:
            raise _lost(error) from error
        finally:
            for task in tasks:
                task.cancel()

    async def _whole(self, job: Job) -> Piece:
        """All of a sequence. Raises Refusal for an error of the engine's."""
        if not job.begun:
            await job.head()
        gathering = Gathering(job)
        if job.in_pieces and job.upstream.status == HTTPStatus.OK:
            over = await job.upstream.pass_to(gathering.take)
            if gathering.piece.error is None and not over:
                self._leave(job)
                return gathering.piece
            job.complete = over or gathering.ended  # else the error is ours: the engine goes on
        else:
            gathering.add(
                job.reader.read(await job.upstream.whole(self._state.limits.answer_bytes))
            )
            job.complete = True
        gathering.add(job.reader.end())
        if gathering.piece.error is not None:
            raise self.refusal(*gathering.piece.error)
        return gathering.piece

    def refusal(self, message: str, code: str) -> OpenAIError:
        """An error of the engine's as the client gets it."""
        status = STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
        return rejected(message, self._names, status)

    async def _stream(self, client: Client, writer: Writer) -> None:
        """Answer piece by piece, once the first sequence has begun."""
        await self._first_heads()
        start = [(b"content-type", EVENTS), (b"cache-control", b"no-store")]
        await client.send({"type": "http.response.start", "status": 200, "headers": start})
        begun = one_line(writer.begin())
        if begun:
            await client.send({"type": "http.response.body", "body": begun, "more_body": True})
        try:
            if len(self._jobs) == 1:
                await self._follow(self._jobs[0], client, writer)
            else:
                await self._gather([self._follow(job, client, writer) for job in self._jobs])
            last = one_line(writer.end(self.usage()))
        except TritonLost as error:
            last = self._failed(writer, _lost(error))
        except OpenAIError as error:
            last = self._failed(writer, error)
        except ClientGone:
            raise
        except Exception as error:  # of ours: the client still sees that the answer is cut
            log.error("an answer could not be written: %s: %s", type(error).__name__, error)
            last = self._failed(writer, OpenAIError(500, "the gateway failed; its log says why"))
        await client.send({"type": "http.response.body", "body": last, "more_body": False})

    def _failed(self, writer: Writer, error: OpenAIError) -> bytes:
        """An error in a stream that has begun, which ends it."""
        self._record.failed = True
        return one_line(writer.error(error))

    async def _first_heads(self) -> None:
        """Wait until an answer has begun that is no error. Raises Refusal for one that is."""
        tasks = [asyncio.ensure_future(self._head(job)) for job in self._jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except TritonLost as error:
            raise _lost(error) from error
        finally:
            for task in tasks:
                task.cancel()

    async def _head(self, job: Job) -> None:
        await job.head()
        if job.upstream.status != HTTPStatus.OK:
            await self._whole(job)

    async def _follow(self, job: Job, client: Client, writer: Writer) -> None:
        """One sequence to its end. Raises OpenAIError for an error of the engine's."""
        if not job.begun:
            await self._head(job)
        flow = Flow(job, writer, client.write, self.refusal)
        while not await job.upstream.pass_to(flow.take):
            if flow.left:
                left, flow.left = flow.left, b""
                await client.send({"type": "http.response.body", "body": left, "more_body": True})
            if flow.error is not None:
                job.complete = flow.ended  # else it is one of ours, and the engine goes on
                raise flow.error
            if flow.over:
                self._leave(job)
                return
        rest = b"".join(flow.made(event) for event in job.reader.end())
        if flow.error is not None:
            raise flow.error
        job.complete = True
        if rest:
            await client.send({"type": "http.response.body", "body": rest, "more_body": True})


def _lost(error: TritonLost) -> OpenAIError:
    refusal = error.refusal
    return OpenAIError(refusal.status, refusal.message, close=True)
