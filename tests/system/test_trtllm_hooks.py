"""Hooks with the C++ backend, which does not say which chunk of a stream is the last."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.utils import InferenceServerException

from support.standin import Script
from support.standin_server import Served, serve
from trellis.tokenizers import load

TEXT = "one two three, naïve 안녕"
PROMPT = "def prompt(text):\n    return text + ' please'\n"
FILES = {
    "push": PROMPT + "class Answer:\n    def push(self, text): return text.upper()\n",
    "end": (
        PROMPT
        + "class Answer:\n    kept = ''\n"
        + "    def push(self, text): self.kept += text; return ''\n"
        + "    def end(self): return self.kept.upper()\n"
    ),
    "function": PROMPT + "def answer(text):\n    return text.upper()\n",
}
REASONS = {
    "end": "stream: hooks.py has Answer.end(), and this engine (TensorRT-LLM 0.17.0) does not say",
    "function": "stream: hooks.py has answer(text), which needs the whole text",
}
Start = Callable[[str], Served]


@pytest.fixture(params=FILES)
def served(
    request: pytest.FixtureRequest, tmp_path: Path, standin_library: Path, llama_folder: Path
) -> Iterator[tuple[str, Served]]:
    """Only a prompt that was hooked is answered with TEXT."""
    llama = load("llama", llama_folder)
    scripts = [
        Script(prompt=llama.encode_fragment(" please"), answer=llama.encode(TEXT)[1:]),
        Script(answer=llama.encode("not hooked")[1:]),
    ]
    file = tmp_path / "my.py"
    file.write_text(FILES[request.param])
    with serve("0.17.0", tmp_path, standin_library, llama_folder, scripts, hooks=file) as running:
        yield request.param, running


def post(port: int, kind: str, **values: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{port}/v2/models/ensemble/{kind}"
    asked = {"text_input": "Say it", "max_tokens": 60, **values}
    return httpx.post(url, json=asked, timeout=20)


def events(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line[6:])["text_output"] for line in answer.text.splitlines() if line]


def test_hooks_hold_by_every_way(served: tuple[str, Served]) -> None:
    kind, running = served
    ports = (running.server.settings.http_port, running.server.triton_port)
    for port in ports:
        assert post(port, "generate").json()["text_output"] == TEXT.upper()
        assert events(post(port, "generate_stream")) == [TEXT.upper()]
    for request_id in ("", "an id"):
        assert running.text("Say it", request_id, max_tokens=60) == [TEXT.upper()]
    if kind == "push":
        for port in ports:
            chunks = events(post(port, "generate_stream", stream=True, id="7"))
            assert len(chunks) > 3
            assert "".join(chunks) == TEXT.upper()
        chunks = running.text("Say it", "another", max_tokens=60, stream=True)
        assert len(chunks) > 3
        assert "".join(chunks) == TEXT.upper()
        return
    for port in ports:
        answer = post(port, "generate_stream", stream=True, id="7")
        assert answer.status_code == 400, answer.text
        assert f"in ensemble 'ensemble', {REASONS[kind]}" in answer.text
    with pytest.raises(InferenceServerException) as caught:
        running.text("Say it", "another", max_tokens=60, stream=True)
    assert REASONS[kind] in str(caught.value.message())
