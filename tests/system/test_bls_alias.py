"""`tensorrt_llm_bls`, the name that NVIDIA's tools and documents use: the same as `ensemble`."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton

from support.asking import ask
from support.engines import read_demo_engine
from trellis.grpc_client import generate, texts
from trellis.repository.assemble import Plan, assemble
from trellis.server.process import Server

PROMPT = "The capital of France is"
MODELS = "/v2/models"


def test_grpc_clients_of_the_name_get_the_ensembles_answer(
    server: Server, http: httpx.Client
) -> None:
    expected = ask(http, PROMPT, max_tokens=8)["text_output"]
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        for stream in (False, True):
            values = {"max_tokens": 8, "stream": stream}
            answers = generate(client, [PROMPT.encode()], values, model="tensorrt_llm_bls")
            assert "".join(texts(answers)) == expected


@pytest.mark.parametrize("body", [{"max_tokens": 8}, {"max_tokens": 0}])
def test_http_clients_of_the_name_get_the_ensembles_answer(
    http: httpx.Client, body: dict[str, Any]
) -> None:
    asked = {"text_input": PROMPT, **body}
    ensemble, alias = (
        http.post(f"{MODELS}/{name}/generate", json=asked)
        for name in ("ensemble", "tensorrt_llm_bls")
    )
    assert alias.status_code == ensemble.status_code
    assert alias.text.replace("tensorrt_llm_bls", "ensemble") == ensemble.text


def test_the_name_can_be_left_out(demo_engine: tuple[Path, Path], tmp_path: Path) -> None:
    engine, tokenizer = demo_engine
    for value in ("true", "false"):
        repo = tmp_path / value
        assemble(
            Plan(read_demo_engine(engine), "gpt2", tokenizer, settings={"bls_alias": value}), repo
        )
        found = {folder.name for folder in repo.iterdir() if folder.is_dir()}
        assert ("tensorrt_llm_bls" in found) == (value == "true")
        assert "ensemble" in found
