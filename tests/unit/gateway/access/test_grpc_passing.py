# SPDX-License-Identifier: Apache-2.0
"""What the gateway's gRPC port passes on, and how, beside a server that answers as Triton does."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from support.key_files import KeyFile
from trellis.gateway.access.grpc_door import SERVICE, GrpcDoor
from trellis.gateway.access.keys import Keyring
from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal
from trellis.server.access_settings import AccessSettings
from trellis.server.admin_endpoints import HEADER
from trellis.server.gateway_settings import GatewaySettings
from trellis.server.ports import free_ports

INFER = ModelInferRequest(model_name="ensemble").SerializeToString()
FAILS = ModelInferRequest(model_name="ensemble", id="fails").SerializeToString()
Code = grpc.StatusCode


class Behind(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers twice what it is sent, and keeps the headers that came."""

    def __init__(self) -> None:
        self.headers: list[dict[str, Any]] = []

    def service(self, details: Any) -> Any:
        self.headers.append(dict(details.invocation_metadata))
        if details.method.endswith("StreamInfer"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, data: bytes, context: Any) -> bytes:
        if data == FAILS:
            await context.abort(Code.FAILED_PRECONDITION, "as Triton says it")
        return data * 2

    async def _stream(self, sent: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for data in sent:
            yield await self._answer(data, context)


class Models:
    """One ensemble."""

    async def find(self, path: str) -> Any:
        if not path.endswith("/ensemble"):
            raise Refusal(404, "no such model")
        return SimpleNamespace(name="ensemble", is_ensemble=True, route=None)


def door_state(settings: GatewaySettings) -> Any:
    """Of a gateway whose models are all asked by Triton."""
    server = SimpleNamespace(hung="")
    return SimpleNamespace(
        settings=settings, limits=Limits(), models=Models(), draining=False, server=server
    )


def door_settings(
    file: KeyFile, port: int, behind_port: int, expose_inner: bool = False
) -> GatewaySettings:
    """Of a door at `port`, before Triton at `behind_port`."""
    return GatewaySettings(
        "127.0.0.1",
        1,
        2,
        3,
        4.0,
        admin_key="secret",
        expose_inner_models=expose_inner,
        grpc_address="127.0.0.1",
        grpc_port=port,
        triton_grpc_port=behind_port,
        access=AccessSettings(api_keys=str(file.path)),
    )


def run(
    file: KeyFile, ask: Callable[[Any, Behind], Awaitable[None]], expose_inner: bool = False
) -> None:
    """Have `ask` ask a door over a channel."""

    async def main() -> None:
        port, behind_port = free_ports(2)
        behind, triton = Behind(), grpc.aio.server()
        triton.add_generic_rpc_handlers((behind,))
        triton.add_insecure_port(f"127.0.0.1:{behind_port}")
        await triton.start()
        settings = door_settings(file, port, behind_port, expose_inner)
        door = GrpcDoor(door_state(settings), Keyring(file.path))
        await door.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await ask(channel, behind)
        finally:
            await door.stop(1)
            await triton.stop(0)

    asyncio.run(main())


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.yaml")


async def fails(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


async def all_of(call: Any) -> list[bytes]:
    return [piece async for piece in call]


def test_bytes_are_passed_on_with_no_header_of_the_client(file: KeyFile) -> None:
    key = file.add("alice")

    async def ask(channel: Any, behind: Behind) -> None:
        sent = (("x-api-key", key), ("triton_grpc_error", "true"), ("x-other", "1"))
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        assert await infer(INFER, metadata=sent, timeout=20) == INFER * 2
        stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer")
        pieces = stream(iter([INFER, INFER]), metadata=sent, timeout=20)
        assert await all_of(pieces) == [INFER * 2] * 2
        assert await channel.unary_unary(f"{SERVICE}ServerLive")(b"", timeout=20) == b""
        assert len(behind.headers) == 3
        for headers in behind.headers:
            own = {name: value for name, value in headers.items() if name.startswith("triton")}
            assert own == {f"triton-grpc-protocol-{HEADER}": "secret"}
            assert not {"x-api-key", "x-other"} & set(headers)

    run(file, ask)


def test_triton_is_there_soon_after_its_port_opens(file: KeyFile) -> None:
    """However often it was asked for before: by itself gRPC waits longer each time."""
    file.add("alice")

    async def main() -> float:
        port, behind_port = free_ports(2)
        settings = door_settings(file, port, behind_port)
        door, triton = GrpcDoor(door_state(settings), Keyring(file.path)), grpc.aio.server()
        await door.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            live = channel.unary_unary(f"{SERVICE}ServerLive")
            shut = time.monotonic() + 12
            while time.monotonic() < shut:
                assert (await fails(live(b"", timeout=5))).code() == Code.UNAVAILABLE
                await asyncio.sleep(0.1)
            triton.add_generic_rpc_handlers((Behind(),))
            triton.add_insecure_port(f"127.0.0.1:{behind_port}")
            await triton.start()
            opened = time.monotonic()
            while time.monotonic() < opened + 20:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await live(b"", timeout=5)
                    break
                await asyncio.sleep(0.05)
        seconds = time.monotonic() - opened
        await door.stop(1)
        await triton.stop(0)
        return seconds

    assert asyncio.run(main()) < 2.5


def test_what_triton_says_of_an_error_is_said(file: KeyFile) -> None:
    key = (("authorization", f"Bearer {file.add('alice')}"),)

    async def ask(channel: Any, _: Behind) -> None:
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer")
        for call in (
            infer(FAILS, metadata=key, timeout=20),
            all_of(stream(iter([FAILS]), metadata=key, timeout=20)),
        ):
            error = await fails(call)
            assert (error.code(), error.details()) == (
                Code.FAILED_PRECONDITION,
                "as Triton says it",
            )

    run(file, ask)


def test_a_stream_ends_with_what_is_refused_in_it(file: KeyFile) -> None:
    few = (("x-api-key", file.add("few", requests_per_minute=1)),)
    alice = (("x-api-key", file.add("alice")),)
    other = ModelInferRequest(model_name="tensorrt_llm").SerializeToString()

    async def ask(channel: Any, behind: Behind) -> None:
        stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer")
        for sent, key, code in (
            ([INFER], (), Code.UNAUTHENTICATED),
            ([other], alice, Code.NOT_FOUND),
            ([b"\xff\xff"], alice, Code.INVALID_ARGUMENT),
            ([INFER, INFER], few, Code.RESOURCE_EXHAUSTED),
        ):
            error = await fails(all_of(stream(iter(sent), metadata=key, timeout=20)))
            assert error.code() == code, error
        unknown = channel.unary_unary(f"{SERVICE}RepositoryIndex")
        assert (await fails(unknown(b"", metadata=alice, timeout=20))).code() == Code.UNIMPLEMENTED
        assert all("x-api-key" not in headers for headers in behind.headers)

    run(file, ask)


def test_inner_models_are_asked_where_they_are_exposed(file: KeyFile) -> None:
    key = (("x-api-key", file.add("alice")),)
    inner = ModelInferRequest(model_name="tensorrt_llm").SerializeToString()

    async def ask(channel: Any, _: Behind) -> None:
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        assert await infer(inner, metadata=key, timeout=20) == inner * 2

    run(file, ask, expose_inner=True)
