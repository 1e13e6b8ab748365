# SPDX-License-Identifier: Apache-2.0
"""TLS before the gateway's protocol: a connection is counted before it shakes hands.

asyncio's own TLS servers make a connection known only after its handshake, so that those which
never shake hands would be nobody's. Here it is accepted and admitted first, then shakes hands under
a time limit, and then is the protocol's.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from trellis.errors import TrellisError
from trellis.gateway.access.keys import HEALTH_PATHS
from trellis.gateway.protocol import GatewayProtocol
from trellis.gateway.refusals import Refusal
from trellis.gateway.sending import CERTIFIED
from trellis.gateway.server_state import GatewayServerState
from trellis.server.access_settings import AccessSettings

log = logging.getLogger("trellis.gateway")
RETRY_SECONDS = 0.1  # after a connection that could not be accepted


class TlsFileError(TrellisError, ValueError):
    """Certificates that cannot be used; the message names the files."""


def make_context(access: AccessSettings) -> ssl.SSLContext:
    """What handshakes go by: TLS 1.2 or newer. Raises TlsFileError.

    Where clients need certificates, a wrong one ends the handshake; that of none is refused by
    ClientCertificates, but for what supervisors ask.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    cert, key = access.tls_cert, access.tls_key or access.tls_cert
    for path in filter(None, (cert, key, access.tls_client_ca)):
        if not Path(path).is_file():
            raise TlsFileError(f"{path}: there is no such file")
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsFileError(
            f"{cert} and {key}: no certificate and its key, PEM, without a password ({error})"
        ) from None
    if access.tls_client_ca:
        try:
            context.load_verify_locations(access.tls_client_ca)
        except (ssl.SSLError, OSError) as error:
            raise TlsFileError(f"{access.tls_client_ca}: no certificates, PEM ({error})") from None
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


class Certificates:
    """The context of new handshakes; connections that are open keep theirs."""

    def __init__(self, access: AccessSettings) -> None:
        """Raises TlsFileError."""
        self._access = access
        self.context = make_context(access)

    def load(self) -> None:
        """Read the files anew. Raises TlsFileError, and keeps the old ones."""
        self.context = make_context(self._access)


class Handshake:
    """A connection that has not shaken hands yet, as the server sees one."""

    working = False

    def __init__(self, address: str) -> None:
        self.address = address
        self.transport = self
        self.task: asyncio.Task[None] | None = None
        self.aborted = False

    def abort(self) -> None:
        """Close it; before it has a task, who accepted it does."""
        self.aborted = True
        if self.task is not None:
            self.task.cancel()

    shutdown = abort

    def look(self, now: float) -> None:
        """It has a time limit of its own."""


class TlsProtocol(GatewayProtocol):
    """A client's connection that has shaken hands."""

    leave_handshake: Callable[[], None]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is counted once: as a handshake until now."""
        self.leave_handshake()
        super().connection_made(transport)


class TlsDoor:
    """Accepts connections of one listening socket, and has them shake hands."""

    def __init__(
        self,
        listener: socket.socket,
        certificates: Certificates,
        state: GatewayServerState,
        protocol: Callable[[], TlsProtocol],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._certificates = certificates
        self._state = state
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Accept no more."""
        self._task.cancel()

    async def _accept(self) -> None:
        while True:
            try:
                client, address = await self._loop.sock_accept(self._listener)
            except OSError as error:  # no descriptor is left, or the client is gone again
                log.error("TLS: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            handshake = Handshake(str(address[0]))
            refused = self._state.admit(handshake) is not None
            if refused or handshake.aborted:  # without TLS it cannot be told why
                self._state.forget(handshake)
                client.close()
                continue
            self._state.connections.add(handshake)
            handshake.task = self._loop.create_task(self._shake_hands(handshake, client))

    async def _shake_hands(self, handshake: Handshake, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._made(handshake),
                client,
                ssl=self._certificates.context,
                ssl_handshake_timeout=self._state.limits.handshake_seconds,
            )
        except (OSError, ssl.SSLError):  # the client's, or too late
            pass
        finally:
            self._leave(handshake)

    def _made(self, handshake: Handshake) -> TlsProtocol:
        made = self._protocol()
        made.leave_handshake = lambda: self._leave(handshake)
        return made

    def _leave(self, handshake: Handshake) -> None:
        if handshake in self._state.connections:
            self._state.connections.discard(handshake)
            self._state.forget(handshake)


class ClientCertificates:
    """Lets in who has shown a certificate, and what supervisors ask, who have none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise Refusal."""
        if not scope.get(CERTIFIED) and scope["path"] not in HEALTH_PATHS:
            raise Refusal(403, "no client certificate: send one that this server's CA has signed")
        await self._app(scope, receive, send)
