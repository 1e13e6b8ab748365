# SPDX-License-Identifier: Apache-2.0
"""The gateway as a whole: it listens, and ends without cutting answers off."""

import asyncio
import contextlib
import gc
import resource
import signal
from pathlib import Path

from trellis.contract.wiring_names import IDS_SUFFIX
from trellis.gateway.connection import Connection
from trellis.gateway.replies import Refusal
from trellis.gateway.settings import STALL_SECONDS
from trellis.gateway.state import State
from trellis.server.gateway_settings import GatewaySettings

BACKLOG = 1024
LOOK_SECONDS = 5.0
PREPARE_SECONDS = 0.2  # between looks for a model that is loading
LAST_SECONDS = 1.0  # for what is stopped as the gateway ends


class Server:
    """Listens for clients until it is asked to stop."""

    def __init__(self, settings: GatewaySettings, loop: asyncio.AbstractEventLoop) -> None:
        self.state = State(settings, loop)
        self._settings = settings
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM, then until the answers in flight have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.state.loop.add_signal_handler(number, self._stopping.set)
        raise_file_limit()
        server = await self.state.loop.create_server(
            lambda: Connection(self.state),
            self._settings.address,
            self._settings.port,
            backlog=BACKLOG,
        )
        preparing = self.state.loop.create_task(self._prepare())
        while not self._stopping.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_SECONDS)
            self._end_stalled()
        server.close()
        preparing.cancel()
        await self._drain()
        self.state.close()

    async def _prepare(self) -> None:
        """Load the tokenizers before the first request wants them, once their models are there."""
        repository = self._settings.model_repo
        for folder in sorted(Path(repository).glob(f"*{IDS_SUFFIX}")) if repository else ():
            path = f"/v2/models/{folder.name.removesuffix(IDS_SUFFIX)}"
            while isinstance(await self.state.models.find(path), Refusal):
                await asyncio.sleep(PREPARE_SECONDS)
        gc.freeze()  # a vocabulary stays, too

    def _end_stalled(self) -> None:
        late = self.state.now() - STALL_SECONDS
        for connection in list(self.state.connections):
            if connection.stalled and connection.progress < late:
                connection.give_up(
                    Refusal(408, f"the rest of the request did not come in {STALL_SECONDS:.0f} s")
                )

    async def _drain(self) -> None:
        for connection in list(self.state.connections):
            connection.finish()
        await self._wait_for_ends(self._settings.exit_timeout)
        for connection in list(self.state.connections):
            connection.transport.abort()
        await self._wait_for_ends(LAST_SECONDS)
        self.state.drains.close()
        await self.state.end_stops()

    async def _wait_for_ends(self, seconds: float) -> None:
        """Until no client and no answer is left, but no longer."""
        end = self.state.now() + seconds
        while (self.state.connections or self.state.drains) and self.state.now() < end:
            await asyncio.sleep(0.02)


def raise_file_limit() -> None:
    """As many connections as this process may have: each takes two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
