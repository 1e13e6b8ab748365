"""The gateway's gRPC port alone: who has no key, what is no method, and how it ends."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc.service_pb2 import ModelInferRequest

from support.fake_triton_http import FakeTriton
from support.gateway_process import Running, gateway
from support.key_files import KeyFile
from trellis.server.access_settings import AccessSettings
from trellis.server.ports import free_ports

SERVICE = "/inference.GRPCInferenceService/"
NO_METHODS = ("RepositoryIndex", "LogSettings", "TraceSetting", "SystemSharedMemoryStatus", "X")
Code = grpc.StatusCode


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.yaml")


@pytest.fixture
def key(file: KeyFile) -> str:
    return file.add("alice", requests_per_minute=2)


@pytest.fixture
def front(file: KeyFile, key: str) -> Iterator[tuple[Running, int]]:
    """A gateway, and its gRPC port; nobody listens on the port behind."""
    port, behind = free_ports(2)
    settings: dict[str, Any] = {
        "grpc_port": port,
        "triton_grpc_port": behind,
        "admin_key": "secret",
    }
    access = AccessSettings(api_keys=str(file.path))
    with FakeTriton() as triton, gateway(triton.port, access=access, **settings) as running:
        yield running, port


def call(port: int, name: str, data: bytes = b"", *metadata: tuple[str, str]) -> grpc.RpcError:
    """How a call fails."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        asked = channel.unary_unary(SERVICE + name)
        with pytest.raises(grpc.RpcError) as failed:
            asked(data, metadata=metadata, timeout=20, wait_for_ready=True)
    return failed.value


def test_who_has_no_key_is_told_so_and_what_is_no_method_is_none(
    front: tuple[Running, int], key: str
) -> None:
    _, port = front
    for name in ("ModelInfer", "ServerMetadata", "ModelConfig", "ModelStatistics", "ModelReady"):
        assert call(port, name).code() == Code.UNAUTHENTICATED
    for name in NO_METHODS:
        assert call(port, name, b"", ("x-api-key", key)).code() == Code.UNIMPLEMENTED
    assert call(port, "ServerLive").code() == Code.UNAVAILABLE  # let in: nobody is behind


def test_limits_and_inner_models_are_errors_of_their_own(
    front: tuple[Running, int], key: str
) -> None:
    _, port = front
    inner = ModelInferRequest(model_name="tensorrt_llm").SerializeToString()
    found = call(port, "ModelInfer", inner, ("authorization", f"Bearer {key}"))
    assert "only ensembles" in found.details()
    assert found.code() == Code.NOT_FOUND
    found = call(port, "ModelInfer", b"\xff\xff", ("x-api-key", key))
    assert found.code() == Code.INVALID_ARGUMENT
    found = call(port, "ServerMetadata", b"", ("x-api-key", key))  # the third within a minute
    assert found.code() == Code.RESOURCE_EXHAUSTED
    assert 1 < int(dict(found.trailing_metadata())["retry-after"]) <= 30


def test_it_ends_when_it_is_asked_to(front: tuple[Running, int]) -> None:
    running, port = front
    call(port, "ModelInfer")
    running.process.terminate()
    begin = time.monotonic()
    running.process.wait(10)
    assert time.monotonic() - begin < 8
