"""A repository assembled for a TensorRT-LLM engine, served with the stand-in backend."""

import json
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tritonclient.grpc as triton

from support import serving
from support.fake_engines import write_engine
from support.standin import Script, read_journal, write_contract, write_scripts
from trellis.contract.release import FOLDER
from trellis.engine_files.engine_folder import read_engine
from trellis.grpc_client import generate, input_types, request_inputs
from trellis.repository.assemble import Plan, assemble
from trellis.repository.model_config import parse_config
from trellis.repository.trtllm_config import config_text
from trellis.server.process import Server

Answer = dict[str, np.ndarray]


@dataclass
class Served:
    """A running server of one release, and ways to ask it."""

    release: str
    server: Server
    folder: Path
    client: triton.InferenceServerClient

    def ask(self, prompts: Sequence[str], request_id: str = "", **values: Any) -> list[Answer]:
        """Every response, over gRPC."""
        texts = [prompt.encode() for prompt in prompts]
        types = input_types(self.client)
        return list(generate(self.client, texts, values, request_id, timeout=20, types=types))

    def ask_with(
        self, prompts: Sequence[str], more: Sequence[tuple[str, str, np.ndarray]], **values: Any
    ) -> list[Answer]:
        """Like `ask`, with tensors that the client has no names for: (name, type, values)."""
        answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        texts = [prompt.encode() for prompt in prompts]
        types = input_types(self.client)
        inputs = request_inputs(texts, values, types)
        for name, kind, array in more:
            if types.get(name) == "UINT32":
                kind, array = "UINT32", array.astype(np.uint32)
            tensor = triton.InferInput(name, list(array.shape), kind)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        try:
            self.client.async_stream_infer("ensemble", inputs)
            result, error = answers.get(timeout=20)
            if error is not None:
                raise error
            names = [output.name for output in result.get_response().outputs]
            return [{name: result.as_numpy(name) for name in names}]
        finally:
            self.client.stop_stream()

    def text(self, prompt: str, request_id: str = "", **values: Any) -> list[str]:
        """The text of every response to one prompt."""
        answers = self.ask([prompt], request_id, **values)
        return [answer["text_output"].reshape(-1)[0].decode() for answer in answers]

    def post(self, **body: Any) -> httpx.Response:
        """One request to /generate."""
        url = f"{self.server.settings.url}/v2/models/ensemble/generate"
        return httpx.post(url, json=body, timeout=20)

    def received(self) -> dict[str, Any]:
        """The tensors of the last request that came to the engine: name -> values, flat."""
        requests = [e for e in read_journal(self.folder / "journal") if e["event"] == "request"]
        return {name: tensor["values"] for name, tensor in requests[-1]["inputs"].items()}

    @property
    def log(self) -> str:
        """What the server and its models said."""
        return (self.folder / serving.LOG).read_text(errors="replace")


@contextmanager
def serve(
    release: str,
    folder: Path,
    library: Path,
    tokenizer: Path,
    scripts: Sequence[Script],
    settings: Mapping[str, str] | None = None,
    exposes: bool = False,
    hooks: Path | None = None,
    limits: Mapping[str, float] | None = None,
    **standin: str,
) -> Iterator[Served]:
    """Assemble, add the stand-in's own parameters, start, wait until ready.

    `exposes`: whether HTTP clients may ask the models inside the ensemble. `limits`: changed ones
    of the gateway.
    """
    engine = write_engine(folder / "llama-out", release)
    plan = Plan(read_engine(engine), "llama", tokenizer, hooks=hooks, settings=settings or {})
    repository = folder / "triton_model_repo"
    assemble(plan, repository)
    (repository / "tensorrt_llm" / library.name).symlink_to(library)
    parameters = {
        "contract": str(write_contract(folder / "contract", contract_of(release))),
        "tokens": str(write_scripts(folder / "scripts", scripts)),
        "log": str(folder / "journal"),
        **standin,
    }
    add_parameters(repository / "tensorrt_llm" / "config.pbtxt", parameters)
    with (
        serving.serve(
            repository, folder, expose_inner_models=exposes, gateway_limits=limits or {}
        ) as server,
        triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client,
    ):
        yield Served(release, server, folder, client)


def contract_of(release: str) -> dict[str, Any]:
    model: dict[str, Any] = json.loads((FOLDER / f"{release}.json").read_text())["tensorrt_llm"]
    return model


def add_parameters(path: Path, parameters: Mapping[str, str]) -> None:
    config = parse_config(path.read_text())
    for key, value in parameters.items():
        config.parameters[f"standin_{key}"].string_value = value
    path.write_text(config_text(config, ""))
