# SPDX-License-Identifier: Apache-2.0
"""What every endpoint does around its own work: read a body, find the model, answer."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from trellis.gateway.ids import new_id
from trellis.gateway.metrics.record import record_of
from trellis.gateway.openai.errors import as_openai
from trellis.gateway.openai.fields import Asked, read_fields
from trellis.gateway.openai.jobs import written
from trellis.gateway.refusals import JSON, Headers, Refusal
from trellis.gateway.request_body import check_content_type, header, read_body
from trellis.gateway.sending import (
    OWN_ID,
    Client,
    Receive,
    Scope,
    Send,
    client_of,
    send_whole,
    until_left,
)
from trellis.gateway.state import State
from trellis.gateway.triton import ClientGone

Made = TypeVar("Made")
BODY_CONTEXT = 1 << 17  # tokens of a context, whatever the models have
INLINE_ITEMS = 20_000  # of a body that is read without a thread: 5 ms


class Endpoint:
    """An ASGI application for one path."""

    name = ""  # the path, if it asks a model

    def __init__(self, state: State) -> None:
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises OpenAIError, ClientGone."""
        if self.name:
            record_of(scope).endpoint = self.name
        try:
            with self.state.bodies.room() as room:
                body = b""
                if scope["method"] == "POST":
                    check_content_type(scope["headers"])
                    limit = await self._body_limit(scope["headers"])
                    body = await read_body(receive, scope["headers"], limit, room)
                await self.answer(scope, body, client_of(scope, receive, send))
        except Refusal as refusal:
            raise as_openai(refusal) from refusal

    async def _body_limit(self, headers: Headers) -> int:
        """The bytes that a body may have. Which model it is for stands in it, so by the largest."""
        limit = self.state.limits.body_limit(BODY_CONTEXT)
        length = header(headers, b"content-length")
        if length.isdigit() and int(length) <= limit:
            return limit
        return self.state.limits.body_limit(await self._context())

    async def _context(self) -> int:
        """Tokens of the largest context, and at least BODY_CONTEXT."""
        return max(await self.state.models.largest_context(), BODY_CONTEXT)

    async def read(self, kind: type[Asked], body: bytes) -> Asked:
        """A body as a checked object. Raises OpenAIError with the field and what to do.

        One with many values, such as a long prompt's ids, is read by another thread: the parsers
        hold Python's lock, so others wait for one of them at a time, and not for all.
        """
        limits = self.state.limits
        if body.count(b",") <= INLINE_ITEMS:
            return read_fields(kind, body, limits)
        context = await self._context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self.state.encoders, read_fields, kind, body, limits, context
        )

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """The endpoint's own work."""
        raise NotImplementedError


async def unless_left(receive: Receive, work: Coroutine[Any, Any, Made]) -> Made:
    """What some work makes; it has ended when this returns. `receive`: after the body.

    Raises what the work raises, and ClientGone once whoever asked has left, which cancels it.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(until_left(receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.wait((task, watch))


async def send_json(client: Client, data: Any) -> None:
    """Send an answer that was made here."""
    headers: Headers = [(b"content-type", JSON)]
    await send_whole(client.send, 200, headers, written(data))


async def send_parts(client: Client, parts: Sequence[bytes]) -> None:
    """Send an answer of JSON that is large, part by part."""
    length = (b"content-length", b"%d" % sum(map(len, parts)))
    headers = [(b"content-type", JSON), length]
    await client.send({"type": "http.response.start", "status": 200, "headers": headers})
    for part in parts:
        await client.send({"type": "http.response.body", "body": part, "more_body": True})
    await client.send({"type": "http.response.body", "body": b"", "more_body": False})


def request_id(scope: Scope) -> str:
    """The id that the gateway gave a request: clients find it in its answer's header."""
    found: str = scope.get(OWN_ID) or new_id()  # beyond the gateway's own middleware a new one
    return found
