"""A tritonserver with the stand-in as its `tensorrtllm` backend, models loaded on demand."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from support.paths import ROOT
from support.standin import StandinBuildError, build_standin
from trellis.server.ports import free_ports

CONTRACTS = ROOT / "src" / "trellis" / "contract" / "releases"
START_SECONDS = 60.0


def contract(release: str) -> dict[str, Any]:
    """The `tensorrt_llm` section of a release's contract."""
    model: dict[str, Any] = json.loads((CONTRACTS / f"{release}.json").read_text())["tensorrt_llm"]
    return model


def config_text(
    name: str, model: Mapping[str, Any], parameters: Mapping[str, str], decoupled: bool
) -> str:
    """A minimal config.pbtxt with the tensors of `model`."""
    lines = [
        f'name: "{name}"',
        'backend: "tensorrtllm"',
        "max_batch_size: 8",
        f"model_transaction_policy {{ decoupled: {str(decoupled).lower()} }}",
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
    ]
    for kind in ("input", "output"):
        lines += [f"{kind} [ {tensor_text(tensor)} ]" for tensor in model[f"{kind}s"]]
    lines += [
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, value in parameters.items()
    ]
    return "\n".join(lines) + "\n"


def tensor_text(tensor: Mapping[str, Any]) -> str:
    dtype = "TYPE_FP32" if tensor["dtype"].startswith("${") else tensor["dtype"]
    text = f'{{ name: "{tensor["name"]}" data_type: {dtype} dims: {tensor["dims"]}'
    if "reshape" in tensor:
        text += f" reshape: {{ shape: {tensor['reshape']} }}"
    for key in ("optional", "allow_ragged_batch"):
        text += f" {key}: true" if tensor.get(key) else ""
    return text + " }"


@dataclass
class Server:
    """A running tritonserver in explicit mode, and the folder its models are written to."""

    folder: Path
    http_port: int
    grpc_port: int
    process: subprocess.Popen[bytes]
    client: triton.InferenceServerClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = triton.InferenceServerClient(f"127.0.0.1:{self.grpc_port}")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def load(
        self,
        name: str,
        model: Mapping[str, Any],
        parameters: Mapping[str, str] | None = None,
        *,
        decoupled: bool = True,
    ) -> str:
        """Write a model and load it; raises tritonclient's exception if the backend refuses."""
        (self.folder / "models" / name / "1").mkdir(parents=True)
        config = self.folder / "models" / name / "config.pbtxt"
        config.write_text(config_text(name, model, parameters or {}, decoupled))
        self.client.load_model(name)
        return name


def start_server(folder: Path, backends: Path) -> Server:
    """Start the embedded tritonserver over `folder/models` and wait until it is live."""
    package = find_spec("pytriton")
    if package is None or package.origin is None:
        pytest.skip("no embedded tritonserver: install nvidia-pytriton")
    root = Path(package.origin).parent / "tritonserver"
    (folder / "models").mkdir()
    ports = free_ports(3)
    command: list[str] = [str(root / "bin" / "tritonserver")]
    command += [f"--model-repository={folder / 'models'}", f"--backend-directory={backends}"]
    command += ["--model-control-mode=explicit", "--allow-metrics=true", "--exit-timeout-secs=5"]
    for service, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{service}-address=127.0.0.1", f"--{service}-port={port}"]
    libraries = [str(root.parents[1] / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    server = Server(folder, ports[0], ports[1], process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if is_live(server):
            return server
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"tritonserver did not start:\n{server.log}")


def is_live(server: Server) -> bool:
    try:
        return bool(server.client.is_server_live())
    except triton.InferenceServerException:
        return False


@pytest.fixture(scope="session")
def standin_backends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backend directory with the compiled stand-in in it."""
    folder = tmp_path_factory.mktemp("backends")
    if shutil.which(os.environ.get("CC", "gcc")) is None:
        pytest.skip("the stand-in backend needs a C compiler: no gcc on PATH")
    try:
        build_standin(folder)
    except StandinBuildError as error:
        pytest.fail(str(error))
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, standin_backends: Path) -> Iterator[Server]:
    if sys.platform != "linux":
        pytest.skip("the embedded tritonserver is for Linux")
    server = start_server(tmp_path_factory.mktemp("standin"), standin_backends)
    yield server
    server.client.close()
    server.process.terminate()
    try:
        server.process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        server.process.kill()
        raise
