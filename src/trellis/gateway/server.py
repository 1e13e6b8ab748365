# SPDX-License-Identifier: Apache-2.0
"""uvicorn's server with our sockets, our protocol, and an end that cuts nothing off.

Asked to stop, it says 503 to readiness and to new requests at once and still takes connections,
until what is in flight has ended or `drain_timeout` is over; what is cut gets an error event.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from trellis.contract.wiring_names import IDS_SUFFIX
from trellis.errors import TrellisError
from trellis.gateway.access.keys import Keyring
from trellis.gateway.access.tls import Certificates, TlsDoor, TlsProtocol
from trellis.gateway.app import make_app
from trellis.gateway.limits import Limits, connections_for
from trellis.gateway.log_rate import limit_lines
from trellis.gateway.logs import set_up
from trellis.gateway.metrics.page import MetricsPage
from trellis.gateway.models import model_path
from trellis.gateway.protocol import GatewayProtocol
from trellis.gateway.refusals import Refusal
from trellis.gateway.server_state import GatewayServerState
from trellis.gateway.state import State
from trellis.gateway.worker_table import WorkerTable, worker_name
from trellis.gateway.workers import END_SECONDS, Workers
from trellis.ipc.heartbeats import heartbeats
from trellis.server.access_settings import AccessSettings
from trellis.server.file_limit import raise_file_limit
from trellis.server.gateway_settings import GatewaySettings

BACKLOG = 1024
PREPARE_SECONDS = 0.2  # between looks for a model that is loading
PREPARE_SECONDS_MOST = 5.0  # where others are there already, and it may never be loaded
DRAIN_LOOK_SECONDS = 0.02
ABANDONED_SECONDS = 5.0  # for answers whose clients are gone to be stopped in the engine
LAST_SECONDS = 1.0  # for what is stopped as the gateway ends
BEAT_SECONDS = 0.25
TICKS = 10  # of uvicorn's main loop in a second
log = logging.getLogger("trellis.gateway")


class Server(uvicorn.Server):
    """Listens for clients until it is asked to stop."""

    server_state: GatewayServerState

    def __init__(
        self,
        settings: GatewaySettings,
        table: WorkerTable | None = None,
        workers: Workers | None = None,
    ) -> None:
        """`table`: of the gateway's workers, if there are several; `workers`: those of the first.

        Raises TrellisError.
        """
        limits = Limits.of(settings.limits)
        raise_file_limit()
        config = uvicorn.Config(
            self._app,
            http=GatewayProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=int(LAST_SECONDS),
        )
        super().__init__(config)
        self._settings = settings
        self._limits = limits
        self.server_state = GatewayServerState(limits, connections_for(limits), table)
        self._table = table
        self._workers = workers
        self._keyring = _keyring(settings.access, table)
        self._certificates = _certificates(settings.access)
        self._doors: list[TlsDoor] = []
        self._grpc: Any = None  # a GrpcDoor
        self.state: State | None = None
        self._asgi: Any = None
        self._metrics: Any = None  # what the metrics port has
        self._preparing: asyncio.Task[None] | None = None
        self._heartbeat = heartbeats().claim(worker_name(table), loops=True)
        set_up(settings.log_format, limits.access_lines)
        limit_lines(("trellis.gateway", "uvicorn.error"), limits.log_lines, limits.log_burst)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, port = scope.get("server") or ("", 0)
        app = self._metrics if port == self._settings.metrics_port and port else self._asgi
        await app(scope, receive, send)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Make what needs the running loop, then listen."""
        self.state = State(self._settings, self._limits, self._keyring, self._table)
        self.state.mesh.start()
        if self._workers is not None:
            self._workers.watch(_worker_died)
        self._asgi = make_app(self.state)
        self.server_state.refused = self.state.registry.refused
        self._metrics = MetricsPage(self.state.figures)
        self._preparing = asyncio.create_task(self._prepare(self.state))
        with contextlib.suppress(RuntimeError, ValueError):  # no main thread: a test's
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        for files in (self._keyring, self._certificates):
            if files is not None:
                with contextlib.suppress(TrellisError):
                    files.load()  # a SIGHUP that came before has been ignored
        if self._keyring is not None and self._settings.grpc_port:
            # Imported where it is wanted: grpc takes a tenth of a second.
            from trellis.gateway.access.grpc_door import GrpcDoor

            self._grpc = GrpcDoor(self.state, self._keyring)
            await self._grpc.start()
        self._beat()
        doors = [each for each in sockets or [] if self._has_door(each)]
        await super().startup([each for each in sockets or [] if each not in doors])
        for listener in doors:
            assert self._certificates is not None
            self._doors.append(
                TlsDoor(listener, self._certificates, self.server_state, self._tls_protocol)
            )

    def _has_door(self, listener: socket.socket) -> bool:
        """Whether it speaks TLS: the metrics port does not, as Triton's own does not."""
        port = listener.getsockname()[1]
        return self._certificates is not None and port != self._settings.metrics_port

    def _tls_protocol(self) -> TlsProtocol:
        return TlsProtocol(self.config, self.server_state, {})

    def reload(self) -> None:
        """Read the files of keys and certificates again; what cannot be used changes nothing."""
        if self._keyring is not None:
            _reload("API keys", self._keyring.load)
        if self._certificates is not None:
            _reload("certificates", self._certificates.load)
        if self._workers is not None:
            self._workers.signal(signal.SIGHUP)

    async def _prepare(self, state: State) -> None:
        """Load the tokenizers before the first request wants them, once their models are there.

        One that is not loaded does not keep the others waiting.
        """
        repository = self._settings.model_repo
        found = sorted(Path(repository).glob(f"*{IDS_SUFFIX}")) if repository else []
        left = [folder.name.removesuffix(IDS_SUFFIX) for folder in found]
        seconds = PREPARE_SECONDS
        while left:
            missing = [name for name in left if not await _found(state, model_path(name))]
            if len(missing) < len(left):
                gc.freeze()  # a vocabulary stays, too
                seconds = PREPARE_SECONDS
            elif len(left) < len(found):
                seconds = min(seconds * 2, PREPARE_SECONDS_MOST)
            left = missing
            if left:
                await asyncio.sleep(seconds)

    async def on_tick(self, counter: int) -> bool:
        """Look after times, once a second."""
        if counter % TICKS == 0:
            self._look()
        return await super().on_tick(counter)

    def _beat(self) -> None:
        """The loop turned: this is one of its callbacks."""
        self._heartbeat.beat()
        if self.state is not None:
            self.state.follow_server()
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            connection.look(now)
        if self.state is not None:
            self.state.triton.sweep()
            self.state.triton_metrics.sweep()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks for the end: say so to whoever asks from now on."""
        self.server_state.draining = self.should_exit = True
        if self.state is not None:
            self.state.draining = True
        if self._workers is not None:
            self._workers.signal(signal.SIGTERM)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for what is in flight, cut off what is left, then close."""
        assert self.state is not None
        if self._preparing is not None:
            self._preparing.cancel()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        seconds = self._settings.drain_timeout
        grpc_ends = self._grpc.stop(seconds) if self._grpc is not None else asyncio.sleep(0)
        await asyncio.gather(self._wait_for_ends(seconds), grpc_ends)
        self.state.cut_off()
        await self._wait_for_ends(LAST_SECONDS)
        for server in self.servers:
            server.close()
        for door in self._doors:
            door.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)
        await self.state.close()
        if self._workers is not None:
            await self._workers.ended(END_SECONDS)

    async def _wait_for_ends(self, seconds: float) -> None:
        """Until no request and no answer is left, but no longer; less for what nobody waits for.

        The first worker waits for those of the others, too: they end with it.
        """
        assert self.state is not None
        loop = asyncio.get_running_loop()
        begin, ticks = loop.time(), 0
        end, abandoned = begin + seconds, begin + min(seconds, ABANDONED_SECONDS)
        while loop.time() < end:
            working = any(one.working or one.begins for one in self.server_state.connections)
            working = working or (self._workers is not None and self._workers.running)
            if not working and (not self.state.abandoned or loop.time() > abandoned):
                return
            await asyncio.sleep(DRAIN_LOOK_SECONDS)
            ticks += 1
            if ticks % int(1 / DRAIN_LOOK_SECONDS) == 0:
                self._look()


def _keyring(access: AccessSettings, table: WorkerTable | None) -> Keyring | None:
    return Keyring(Path(access.api_keys), table=table) if access.api_keys else None


def _worker_died(what: str) -> None:
    """End with it: the launcher sees the first process alone."""
    log.error("%s; ending the gateway", what)
    os._exit(1)


def _certificates(access: AccessSettings) -> Certificates | None:
    return Certificates(access) if access.tls_cert else None


def _reload(what: str, load: Callable[[], object]) -> None:
    try:
        load()
    except TrellisError as error:
        log.error("%s: %s; what was read before stays", what, error)
    else:
        log.warning("%s: read again", what)


async def _found(state: State, path: str) -> bool:
    try:
        await state.models.find(path)
    except Refusal:
        return False
    return True


def listening_sockets(address: str, port: int, shared: bool = False) -> list[socket.socket]:
    """One for each address that a name stands for. Raises OSError.

    `shared`: other processes of this user may listen there, too.
    """
    made: list[socket.socket] = []
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            made.append(listener := socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(place)
    except OSError:
        for listener in made:
            listener.close()
        raise
    return made
