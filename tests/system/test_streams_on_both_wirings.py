"""A stream says the same whatever engine is behind: a Python one, and the C++ backend."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton

from support.standin import Script
from support.standin_server import serve
from trellis.engine_files.engine_folder import read_engine
from trellis.grpc_client import generate, texts
from trellis.repository.assemble import Plan, assemble
from trellis.server.ports import free_ports
from trellis.server.process import Server, ServerSettings
from trellis.tokenizers import load

PROMPT = "The capital of France is"
ASKED = {"max_tokens": 8, "end_id": -1}
Running = tuple[Server, bool]  # and whether the prompt may be asked for in whole answers


@pytest.fixture(scope="module", params=["python", "0.9.0", "0.17.0", "1.x"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A repository whose answers have the prompt in front unless a request says otherwise."""
    folder = tmp_path_factory.mktemp("streams")
    settings = {"exclude_input_in_output": "false"}
    if request.param == "python":
        engine, tokenizer = request.getfixturevalue("demo_engine")
        repository = folder / "triton_model_repo"
        assemble(Plan(read_engine(engine), "gpt2", tokenizer, settings=settings), repository)
        with (folder / "triton.log").open("wb") as log:
            server = Server(ServerSettings(repository, *free_ports(3)), log)
        with server:
            server.wait_ready()
            yield server, True
        return
    library = request.getfixturevalue("standin_library")
    llama: Path = request.getfixturevalue("llama_folder")
    scripts = [Script(answer=load("llama", llama).encode_fragment(" Paris, and it is large"))]
    with serve(request.param, folder, library, llama, scripts, settings) as served:
        yield served.server, request.param not in ("0.9.0",)


def over_grpc(server: Server, values: dict[str, Any]) -> list[str]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client:
        return list(texts(generate(client, [PROMPT.encode()], values, "an id", timeout=60)))


def over_http(server: Server, values: dict[str, Any]) -> list[str]:
    way = "generate_stream" if values.get("stream") else "generate"
    url = f"{server.settings.url}/v2/models/ensemble/{way}"
    answer = httpx.post(url, json={"text_input": PROMPT, **values}, timeout=60)
    assert answer.status_code == 200, answer.text
    if way == "generate":
        return [answer.json()["text_output"]]
    return [json.loads(line[6:])["text_output"] for line in answer.text.splitlines() if line]


@pytest.mark.parametrize("ask", [over_grpc, over_http])
@pytest.mark.parametrize("exclude", [None, False, True])
def test_a_stream_is_the_completion_alone_whatever_is_said_of_the_prompt(
    running: Running, ask: Callable[[Server, dict[str, Any]], list[str]], exclude: bool | None
) -> None:
    server, free = running
    said = {} if exclude is None else {"exclude_input_in_output": exclude}
    chunks = ask(server, {**ASKED, **said, "stream": True})
    assert len(chunks) > 2
    assert PROMPT not in "".join(chunks)
    if exclude and not free:
        return
    (whole,) = ask(server, {**ASKED, **said})
    assert whole.startswith(PROMPT) == (not exclude)
    assert whole.endswith("".join(chunks))
