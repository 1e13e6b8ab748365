# SPDX-License-Identifier: Apache-2.0
"""gRPC where keys are asked for: a thin gateway before Triton's own port.

Triton knows no keys of clients. Here a call's key is looked for, its limits are kept, and its bytes
are passed on with no header of the client's: `triton_grpc_error` ends servers before 26.04. Methods
that are not in the table are none: shared memory, model control, logs and traces.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc

from trellis.gateway.access.accounts import Account
from trellis.gateway.access.grpc_requests import GrpcRequest, read_request
from trellis.gateway.access.grpc_stream import GrpcStream
from trellis.gateway.access.keys import Keyring
from trellis.gateway.models import check_inner, model_path
from trellis.gateway.refusals import Headers, Refusal
from trellis.gateway.state import State
from trellis.server.access_settings import AccessSettings
from trellis.server.admin_endpoints import HEADER

SERVICE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/Check"
OPEN = frozenset((f"{SERVICE}ServerLive", f"{SERVICE}ServerReady", HEALTH))
INFER, STREAM = f"{SERVICE}ModelInfer", f"{SERVICE}ModelStreamInfer"
TOLD = ("ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics")
METHODS = OPEN | {INFER} | {SERVICE + name for name in TOLD}
MESSAGE_BYTES = 64 << 20  # of an answer of Triton's
STREAMS = 256  # at once on one connection
# Triton's port may take minutes to open, or is opened anew; gRPC itself would wait up to two more.
RECONNECT_MS = (("initial", 100), ("min", 100), ("max", 1000))
STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
Context = Any  # grpc.aio.ServicerContext


class GrpcDoor(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers the calls of clients with a key, by Triton's port behind."""

    def __init__(self, state: State, keyring: Keyring) -> None:
        settings = state.settings
        most = state.limits.body_limit(1 << 17)
        self._state = state
        self._keyring = keyring
        self._metadata = ((f"triton-grpc-protocol-{HEADER}", settings.admin_key),)
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{settings.triton_grpc_port}",
            options=[
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                *((f"grpc.{name}_reconnect_backoff_ms", after) for name, after in RECONNECT_MS),
            ],
        )
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", most),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", STREAMS),
                ("grpc.so_reuseport", int(settings.workers > 1)),
            ],
            maximum_concurrent_rpcs=int(state.limits.connections),
        )
        self._server.add_generic_rpc_handlers((self,))
        place = f"{settings.grpc_address}:{settings.grpc_port}"
        if settings.access.tls_cert:
            self._server.add_secure_port(place, _credentials(settings.access))
        else:
            self._server.add_insecure_port(place)

    async def start(self) -> None:
        """Listen."""
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no more calls; those in flight have so long to end."""
        await self._server.stop(seconds)
        await self._channel.close()

    def service(self, details: Any) -> Any:
        """What answers a method; None: there is none of that name."""
        if details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        if details.method not in METHODS:
            return None
        asked = self._channel.unary_unary(details.method)

        async def answer(data: bytes, context: Context) -> bytes:
            try:
                if details.method in OPEN:
                    return await self._passed_on(asked, data, context)
                account = self._account(context)
                with account.request() as allowance:
                    if details.method == INFER:
                        allowance.reserve((await self._read(data)).tokens)
                    return await self._passed_on(asked, data, context)
            except Refusal as refusal:
                await _abort(context, refusal)
                raise

        return grpc.unary_unary_rpc_method_handler(answer)

    async def _stream(self, sent: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """A stream of requests and answers; the first refusal ends it."""
        try:
            account = self._account(context)
            with account.request() as allowance:
                first = True

                async def check(data: bytes) -> GrpcRequest:
                    nonlocal first
                    if not first:
                        account.count()
                    request = await self._read(data)
                    allowance.reserve(request.tokens)
                    first = False
                    return request

                stream = GrpcStream(
                    self._state, self._streamed, f"grpc {account.name}", _scope(context)
                )
                async with contextlib.aclosing(stream.answers(sent, check)) as answers:
                    async for piece in answers:
                        yield piece
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
        except Refusal as refusal:
            await _abort(context, refusal)

    def _streamed(self, requests: AsyncIterator[bytes]) -> Any:
        return self._channel.stream_stream(STREAM)(requests, metadata=self._metadata)

    async def _passed_on(self, asked: Any, data: bytes, context: Context) -> bytes:
        try:
            left = context.time_remaining()
            answer: bytes = await asked(data, metadata=self._metadata, timeout=left)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details())
            raise
        return answer

    def _account(self, context: Context) -> Account:
        return self._keyring.find(_headers(context))

    async def _read(self, data: bytes) -> GrpcRequest:
        """A request. Raises Refusal for one of a model that is not asked."""
        request = read_request(data)
        if not self._state.settings.expose_inner_models:
            check_inner(await self._state.models.find(model_path(request.model)))
        return request


def _scope(context: Context) -> dict[str, Any]:
    """What the log and the spans say of a call."""
    return {
        "method": "POST",
        "path": STREAM,
        "headers": _headers(context),
        "client": (_address(context.peer()), 0),
    }


def _address(peer: str) -> str:
    """Of a client, as gRPC writes it.

    >>> _address("ipv6:%5B::1%5D:60486"), _address("ipv4:127.0.0.1:4")
    ('::1', '127.0.0.1')
    """
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def _headers(context: Context) -> Headers:
    return [
        (str(name).encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in context.invocation_metadata() or ()
    ]


def _credentials(access: AccessSettings) -> Any:
    """TLS by the files as they are at each handshake; those that cannot be read change nothing."""

    def read() -> Any:
        key = Path(access.tls_key or access.tls_cert).read_bytes()
        pair = (key, Path(access.tls_cert).read_bytes())
        authority = Path(access.tls_client_ca).read_bytes() if access.tls_client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)

    def again() -> Any:
        try:
            return read()
        except OSError:
            return None

    needed = bool(access.tls_client_ca)
    return grpc.dynamic_ssl_server_credentials(read(), again, needed)


async def _abort(context: Context, refusal: Refusal) -> None:
    code = STATUS.get(refusal.status, grpc.StatusCode.UNAVAILABLE)
    after = (("retry-after", str(refusal.retry_after)),) if refusal.status == 429 else ()
    await context.abort(code, refusal.message, after)
