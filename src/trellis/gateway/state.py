# SPDX-License-Identifier: Apache-2.0
"""What the connections of the gateway share, as uvicorn's ServerState is shared."""

import asyncio
import contextlib
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from trellis.gateway.abandoned_responses import AbandonedResponses
from trellis.gateway.body import stop_body
from trellis.gateway.counts import Counts
from trellis.gateway.disconnects import DisconnectNotices
from trellis.gateway.ids import RequestIds
from trellis.gateway.models import Models
from trellis.gateway.replies import Refusal
from trellis.gateway.requests import Request
from trellis.gateway.upstream import Client, Upstream
from trellis.server.gateway_settings import GatewaySettings

STOP_SECONDS = 5.0
STOP_AGAIN_SECONDS = 1.0
STOPS_AT_ONCE = 64


class Served(Protocol):
    """A client's connection, as the gateway as a whole sees it."""

    transport: asyncio.Transport
    progress: float  # when a request of it last went on

    @property
    def stalled(self) -> bool:
        """Whether it waits for the rest of a request and for nothing else, or may be gone."""

    def give_up(self, refusal: Refusal) -> None:
        """End it, as it does not go on."""

    def finish(self) -> None:
        """End it after the answer in flight."""


class State:
    """Settings, models, ids and counts; and how a request of a client that left is ended."""

    def __init__(self, settings: GatewaySettings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.now = loop.time
        self.connections: set[Served] = set()
        self.drains = AbandonedResponses(loop)
        self.models = Models(settings.triton_port, settings.model_repo)
        self.exposes_inner_models = settings.expose_inner_models
        self.ids = RequestIds()
        # For long prompts: tokenizers of the usual kinds hold no lock of Python's meanwhile.
        self.encoders = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "encode")
        self.counts = Counts(settings.triton_pid, loop)
        self._port = settings.triton_port
        self._stops: set[asyncio.Task[None]] = set()
        self._stops_at_once = asyncio.Semaphore(STOPS_AT_ONCE)
        self._notices = DisconnectNotices(settings.triton_pid, self.drains, loop)

    async def connect(self, client: Client) -> tuple[asyncio.BaseTransport, Upstream]:
        """A new connection to Triton. Raises OSError if it takes none."""
        return await self.loop.create_connection(lambda: Upstream(client), "127.0.0.1", self._port)

    def new_token(self) -> str:
        """What the engine host knows a connection by; nobody can guess it."""
        return secrets.token_urlsafe(16)

    def gone(self, request: Request, upstream: Upstream | None) -> None:
        """The client of this request is gone: have the engine stop it.

        `upstream`: where the rest of its answer comes, which is nobody's.
        """
        by_id = request.request_id  # of an engine that knows no tokens
        token = "" if by_id else request.token
        if upstream is not None:
            self.drains.add(upstream, token)
        if token:
            self._notices.add(token)
        if by_id and request.stops_by_id:
            task = self.loop.create_task(self._stop_by_id(request.model_path, by_id, upstream))
            self._stops.add(task)
            task.add_done_callback(self._stops.discard)

    async def _stop_by_id(
        self, model_path: str, request_id: str, upstream: Upstream | None
    ) -> None:
        """Until its answer ends: a stop may overtake the request itself, and then ends nothing."""
        await self._stop(model_path, request_id)
        await asyncio.sleep(STOP_AGAIN_SECONDS)
        await self._stop(model_path, request_id)
        while upstream in self.drains:
            await asyncio.sleep(STOP_AGAIN_SECONDS)
            await self._stop(model_path, request_id)

    async def _stop(self, model_path: str, request_id: str) -> None:
        """Ask for the end of a request by its id, as TensorRT-LLM's own engine has it."""
        body = stop_body(request_id)
        head = f"POST {model_path}/generate HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            async with self._stops_at_once:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(head.encode() + body)
                    await asyncio.wait_for(reader.read(), STOP_SECONDS)
                finally:
                    writer.close()

    async def end_stops(self) -> None:
        """Ask for the end of no request any more."""
        for task in self._stops:
            task.cancel()
        await asyncio.gather(*self._stops, return_exceptions=True)

    def close(self) -> None:
        """End what listens and what encodes."""
        self._notices.close()
        self.counts.close()
        self.encoders.shutdown(wait=False, cancel_futures=True)
