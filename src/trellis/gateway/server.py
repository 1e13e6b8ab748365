"""The front as a whole: it listens, knows its connections, and ends without cutting answers off."""

import asyncio
import contextlib
import gc
import os
import resource
import secrets
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trellis.gateway.abandoned_responses import Drains
from trellis.gateway.body import stop_body
from trellis.gateway.connection import Connection
from trellis.gateway.counts import Counts
from trellis.gateway.disconnects import Notices
from trellis.gateway.ids import RequestIds
from trellis.gateway.models import Models
from trellis.gateway.replies import Refusal
from trellis.gateway.requests import Request
from trellis.gateway.settings import IDS_SUFFIX, STALL_SECONDS, FrontSettings
from trellis.gateway.upstream import Upstream

BACKLOG = 1024
LOOK_SECONDS = 5.0
STOP_SECONDS = 5.0
STOP_AGAIN_SECONDS = 1.0
STOPS_AT_ONCE = 64
PREPARE_SECONDS = 0.2  # between looks for a model that is loading
LAST_SECONDS = 1.0  # for what is stopped as the front ends


class Relay:
    """What the connections share."""

    def __init__(self, settings: FrontSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.now = loop.time
        self.connections: set[Connection] = set()
        self.drains = Drains(loop)
        self.models = Models(settings.triton_port, settings.model_repo)
        self.exposes_inner_models = settings.expose_inner_models
        self.ids = RequestIds()
        # For long prompts: tokenizers of the usual kinds hold no lock of Python's meanwhile.
        self.encoders = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "encode")
        self._settings = settings
        self._port = settings.triton_port
        self._stops: set[asyncio.Task[None]] = set()
        self._stops_at_once = asyncio.Semaphore(STOPS_AT_ONCE)
        self._notices = Notices(settings.triton_pid, self.drains, loop)
        self.counts = Counts(settings.triton_pid, loop)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM, then until the answers in flight have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stopping.set)
        raise_file_limit()
        server = await self.loop.create_server(
            lambda: Connection(self), self._settings.address, self._settings.port, backlog=BACKLOG
        )
        preparing = self.loop.create_task(self._prepare())
        while not self._stopping.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)
            self._end_stalled()
        server.close()
        preparing.cancel()
        await self._drain()
        self._notices.close()
        self.counts.close()
        self.encoders.shutdown(wait=False, cancel_futures=True)

    async def _prepare(self) -> None:
        """Load the tokenizers before the first request wants them, once their models are there."""
        repository = self._settings.model_repo
        for folder in sorted(Path(repository).glob(f"*{IDS_SUFFIX}")) if repository else ():
            path = f"/v2/models/{folder.name.removesuffix(IDS_SUFFIX)}"
            while isinstance(await self.models.find(path), Refusal):
                await asyncio.sleep(PREPARE_SECONDS)
        gc.freeze()  # a vocabulary stays, too

    async def connect(self, client: Connection) -> tuple[asyncio.BaseTransport, Upstream]:
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

    def _end_stalled(self) -> None:
        late = self.now() - STALL_SECONDS
        for connection in list(self.connections):
            if connection.stalled and connection.progress < late:
                connection.give_up(
                    Refusal(408, f"the rest of the request did not come in {STALL_SECONDS:.0f} s")
                )

    async def _drain(self) -> None:
        for connection in list(self.connections):
            connection.finish()
        await self._wait_for_ends(self._settings.exit_timeout)
        for connection in list(self.connections):
            connection.transport.abort()
        await self._wait_for_ends(LAST_SECONDS)
        self.drains.close()
        for task in self._stops:
            task.cancel()
        await asyncio.gather(*self._stops, return_exceptions=True)

    async def _wait_for_ends(self, seconds: float) -> None:
        """Until no client and no answer is left, but no longer."""
        end = self.now() + seconds
        while (self.connections or self.drains) and self.now() < end:
            await asyncio.sleep(0.02)


def raise_file_limit() -> None:
    """As many connections as this process may have: each takes two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
