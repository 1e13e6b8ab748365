"""A server of OpenVINO IR with a LoRA adapter and guessed tokens, as clients ask it."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.asking import ask, refused
from support.lora_adapters import write_adapter
from support.openai_api import error, post
from support.openvino_ir import write_ir
from support.serving import serve
from trellis.engine_files.engine_folder import read_engine
from trellis.repository.assemble import Plan, assemble

PROMPT = "The capital of France is"
SHAPES = {f"model.layers.{layer}.self_attn.q_proj": (576, 576) for layer in range(20)}


@pytest.fixture(scope="module")
def http(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("adapters")
    adapter = write_adapter(folder / "polite", SHAPES)
    settings = {"lora_adapters": f"polite={adapter}", "prompt_lookup": "3"}
    engine = read_engine(write_ir(folder / "ir"))
    assemble(Plan(engine, "auto", demo_engine[1], settings=settings), folder / "repo")
    with (
        serve(folder / "repo", folder) as server,
        httpx.Client(base_url=server.settings.url, timeout=300) as client,
    ):
        yield client


def test_a_request_names_its_adapter_in_either_api(http: httpx.Client) -> None:
    plain = ask(http, PROMPT, max_tokens=12)["text_output"]
    polite = ask(http, PROMPT, max_tokens=12, lora_name="polite")["text_output"]
    assert polite != plain
    for model, text in (("polite", polite), ("ensemble", plain)):
        sent = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        answer = post(http, "/v1/completions", model=model, **sent)
        assert answer["choices"][0]["text"] == text
    listed = http.get("/v1/models").json()["data"]
    assert {model["id"] for model in listed} == {"ensemble", "polite"}


def test_what_is_not_there_is_named(http: httpx.Client) -> None:
    sent = {"text_input": PROMPT, "max_tokens": 4}
    assert "lora_name: this engine (openvino) has no adapter 'rude'" in refused(
        http, sent | {"lora_name": "rude"}
    )
    assert "beam_width: this engine (openvino) guesses tokens" in refused(
        http, sent | {"beam_width": 2}
    )
    found = error(
        http, "/v1/completions", {"model": "ensemble", "prompt": "a", "n": 2, "min_tokens": 2}
    )
    assert found["param"] == "min_tokens"
