"""What a client has no business with is shut, over HTTP and gRPC; what it needs is open."""

from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from trellis.server.admin_endpoints import new_key, restrictions
from trellis.server.process import Server

SHUT = [
    ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/mine/register"),
    ("GET", "/v2/cudasharedmemory/status"),
    ("POST", "/v2/cudasharedmemory/region/mine/register"),
    ("POST", "/v2/repository/models/ensemble/load"),
    ("POST", "/v2/repository/models/ensemble/unload"),
    ("GET", "/v2/logging"),
    ("POST", "/v2/logging"),
    ("GET", "/v2/trace/setting"),
    ("POST", "/v2/models/ensemble/trace/setting"),
]
OPEN = ["/v2/health/live", "/v2/health/ready", "/v2", "/v2/models/ensemble"]
SHUT_GRPC: dict[str, Callable[[triton.InferenceServerClient], object]] = {
    "shared memory": lambda client: client.register_system_shared_memory("mine", "/x", 1),
    "its status": lambda client: client.get_system_shared_memory_status(),
    "CUDA memory": lambda client: client.get_cuda_shared_memory_status(),
    "index": lambda client: client.get_model_repository_index(),
    "load": lambda client: client.load_model("ensemble"),
    "unload": lambda client: client.unload_model("ensemble"),
    "logging": lambda client: client.get_log_settings(),
    "log file": lambda client: client.update_log_settings({"log_file": "/tmp/mine"}),
    "trace": lambda client: client.update_trace_settings("ensemble", {"trace_file": "/tmp/mine"}),
}


@pytest.mark.promise("shut")
@pytest.mark.parametrize(("method", "path"), SHUT)
def test_an_endpoint_for_administrators_is_shut(http: httpx.Client, method: str, path: str) -> None:
    assert http.request(method, path, content=b"{}").status_code == 403


def test_the_index_of_models_is_open_and_nothing_else_of_model_control(
    http: httpx.Client,
) -> None:
    found = http.post("/v2/repository/index", json={"ready": True})
    assert found.status_code == 200
    assert {model["name"] for model in found.json()} >= {"ensemble", "tensorrt_llm"}


@pytest.mark.parametrize("path", OPEN)
def test_what_clients_need_is_open(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 200


@pytest.mark.promise("shut")
@pytest.mark.parametrize("name", SHUT_GRPC)
def test_the_same_over_grpc(server: Server, name: str) -> None:
    with (
        triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        SHUT_GRPC[name](client)


def test_a_server_without_the_options_is_not_given_them(tmp_path: Path) -> None:
    old = tmp_path / "tritonserver"
    old.write_bytes(b"\x7fELF --grpc-restricted-protocol and nothing else")
    (argument,) = restrictions(old, new_key())
    assert argument.startswith("--grpc-restricted-protocol=shared-memory,model-repository,")
    old.write_bytes(b"")
    assert restrictions(old, new_key()) == []


def test_the_key_is_another_each_time(server: Server) -> None:
    binary = Path(psutil.Process(server.process.pid).exe())
    assert len(restrictions(binary, new_key())) == 2
    assert restrictions(binary, new_key()) != restrictions(binary, new_key())


def test_it_listens_on_loopback_alone(server: Server) -> None:
    tree = [psutil.Process(server.process.pid)]
    if server.gateway is not None:
        tree.append(psutil.Process(server.gateway.pid))
    listening = {
        connection.laddr.ip
        for process in [*tree, *tree[0].children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert listening


def test_no_process_of_it_can_gain_rights(server: Server) -> None:
    tree = psutil.Process(server.process.pid)
    for process in [tree, *tree.children(recursive=True)]:
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status, process
