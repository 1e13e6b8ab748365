# SPDX-License-Identifier: Apache-2.0
"""A tokenizer's library panics under a real server: one request fails, and nobody waits."""

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from support.asking import ENSEMBLE
from support.panicking import panicking_document
from support.serving import serve_demo
from trellis.server.process import Server

BAD = "quite bad"  # begins with q
PROMPTS = [f"Once upon a time {number}" for number in range(12)]


@pytest.fixture(scope="module")
def served(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    engine, files = demo_engine
    place = tmp_path_factory.mktemp("panics")
    folder = place / "smollm2-tokenizer"
    folder.mkdir()
    for file in files.iterdir():
        os.link(file, folder / file.name)
    document = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(panicking_document(document)))
    with serve_demo((engine, folder), place) as server:
        yield server, place / "triton.log"


@pytest.mark.parametrize("past_the_gateway", [False, True])
def test_a_panic_fails_its_request_alone(
    served: tuple[Server, Path], past_the_gateway: bool
) -> None:
    server, log = served
    port = server.triton_port if past_the_gateway else server.settings.http_port
    before = log.read_text(errors="replace")

    def ask(text: str) -> httpx.Response:
        body = {"text_input": text, "max_tokens": 4}
        return client.post(f"{ENSEMBLE}/generate", json=body)

    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
        ThreadPoolExecutor(13) as pool,
    ):
        answers = list(pool.map(ask, [*PROMPTS[:6], BAD, *PROMPTS[6:]]))
    bad = answers.pop(6)
    assert bad.status_code == 400
    assert (
        "text_input: the tokenizer failed: the tokenizer's library panicked: index out" in bad.text
    )
    assert [answer.status_code for answer in answers] == [200] * 12
    said = log.read_text(errors="replace")[len(before) :]
    assert said.count("a prompt could not be encoded") == 1
    assert "Traceback" not in said
