"""A tritonserver with the stand-in as its `tensorrtllm` backend, models loaded on demand."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from support.paths import ROOT
from support.serving import LOG, serve
from trellis.server import process

CONTRACTS = ROOT / "src" / "trellis" / "contract" / "releases"


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
    library: Path
    running: process.Server
    client: triton.InferenceServerClient

    @property
    def http_port(self) -> int:
        return self.running.settings.http_port

    @property
    def grpc_port(self) -> int:
        return self.running.settings.grpc_port

    @property
    def pid(self) -> int:
        return self.running.process.pid

    @property
    def log(self) -> str:
        return (self.folder / LOG).read_text(errors="replace")

    def load(
        self,
        name: str,
        model: Mapping[str, Any],
        parameters: Mapping[str, str] | None = None,
        *,
        decoupled: bool = True,
    ) -> str:
        """Write a model and load it; raises tritonclient's exception if the backend refuses."""
        folder = self.folder / "models" / name
        (folder / "1").mkdir(parents=True)
        (folder / self.library.name).symlink_to(self.library)
        text = config_text(name, model, parameters or {}, decoupled)
        (folder / "config.pbtxt").write_text(text)
        self.client.load_model(name)
        return name


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, standin_library: Path) -> Iterator[Server]:
    """Without a gateway; any model may be loaded."""
    folder = tmp_path_factory.mktemp("standin")
    (folder / "models").mkdir()
    models, extra = folder / "models", ("--model-control-mode=explicit",)
    with (
        serve(
            models, folder, extra=extra, http_gateway=False, allow_admin_endpoints=True
        ) as running,
        triton.InferenceServerClient(f"127.0.0.1:{running.settings.grpc_port}") as client,
    ):
        yield Server(folder, standin_library, running, client)
