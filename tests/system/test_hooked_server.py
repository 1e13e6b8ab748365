"""Hooks on a real server: over HTTP and gRPC, whole and streamed, by every way."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.asking import ENSEMBLE, ask, chat
from support.openai_api import (
    CHAT,
    COMPLETIONS,
    MODEL,
    error,
    events,
    joined,
    plain,
    post,
    user,
)
from support.paths import ROOT
from support.serving import serve_demo
from trellis.grpc_client import generate, texts
from trellis.server.process import Server

EXAMPLE = ROOT / "examples" / "hooks.py"
QUESTION = "What is the capital of France?"
VALUES = {"max_tokens": 24, "temperature": 0.0}

FUNCTION = """
def prompt(text):
    if "boom" in text:
        raise ValueError("told to")
    return text

def answer(text):
    if "9" in text:
        raise ValueError("a nine")
    return text.upper()
"""


@pytest.fixture(scope="module")
def hooked(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serve_demo(demo_engine, tmp_path_factory.mktemp("hooks"), {}, EXAMPLE) as server:
        yield server


@pytest.fixture(scope="module")
def whole_only(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("function")
    file = folder / "my.py"
    file.write_text(FUNCTION)
    with serve_demo(demo_engine, folder, {}, file) as server:
        yield server


def over_http(port: int, prompt: str, kind: str, **values: Any) -> list[str]:
    body = {"text_input": prompt, **VALUES, **values}
    answer = httpx.post(f"http://127.0.0.1:{port}{ENSEMBLE}/{kind}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    if kind == "generate":
        return [answer.json()["text_output"]]
    return [json.loads(line[6:])["text_output"] for line in answer.text.splitlines() if line]


def over_grpc(server: Server, prompt: str, **values: Any) -> list[str]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client:
        return list(texts(generate(client, [prompt.encode()], {**VALUES, **values}, timeout=120)))


def test_the_example_is_the_one_of_the_docs() -> None:
    page = (ROOT / "docs" / "hooks.md").read_text()
    shown = EXAMPLE.read_text().partition("\n")[2]  # without the licence
    assert f"```python\n{shown}```" in page


def test_every_way_gives_what_the_hooks_make_of_the_models_text(
    hooked: Server, http: httpx.Client
) -> None:
    """`http`: a server without hooks, whose client does by hand what they do."""
    by_hand = ask(http, chat(QUESTION), **VALUES)["text_output"]
    assert "Paris" in by_hand
    wanted = by_hand.replace("Paris", "*****")
    gateway, direct = hooked.settings.http_port, hooked.triton_port
    streams = []
    for port in (gateway, direct):
        assert over_http(port, QUESTION, "generate") == [wanted]
        assert over_http(port, QUESTION, "generate_stream") == [wanted]
        streams.append(over_http(port, QUESTION, "generate_stream", stream=True))
    streams.append(over_grpc(hooked, QUESTION, stream=True))
    assert over_grpc(hooked, QUESTION) == [wanted]
    for chunks in streams:
        assert len(chunks) > 3
        assert "".join(chunks) == wanted


def test_several_sequences_have_a_hook_each(hooked: Server) -> None:
    values = {"num_return_sequences": 2, "temperature": 0.01, "top_k": 2, "seed": 1}
    with triton.InferenceServerClient(f"127.0.0.1:{hooked.settings.grpc_port}") as client:
        sent = {**VALUES, **values}
        (answer,) = generate(client, [QUESTION.encode()], sent, timeout=120)
    made = [text.decode() for text in answer["text_output"].reshape(-1)]
    assert len(made) == 2
    assert all("*****" in text and "Paris" not in text for text in made)


def test_the_gateway_stands_for_hooked_plugins(hooked: Server) -> None:
    url = f"http://127.0.0.1:{hooked.triton_port}/v2/models/postprocessing/stats"

    def asked() -> int:
        stats = httpx.get(url, timeout=10).json()["model_stats"]
        return sum(int(model.get("inference_count", 0)) for model in stats)

    before = asked()
    over_http(hooked.settings.http_port, QUESTION, "generate_stream", stream=True)
    assert asked() == before


WHOLE = "stream: hooks.py has answer(text), which needs the whole text; send stream: false"


def test_a_function_has_the_whole_text_and_rejects_streams(
    whole_only: Server, http: httpx.Client
) -> None:
    prompt = "The capital of France is"
    wanted = ask(http, prompt, **VALUES)["text_output"].upper()
    gateway, direct = whole_only.settings.http_port, whole_only.triton_port
    for port in (gateway, direct):
        assert over_http(port, prompt, "generate") == [wanted]
        assert over_http(port, prompt, "generate_stream", stream=False) == [wanted]
        url = f"http://127.0.0.1:{port}{ENSEMBLE}/generate_stream"
        body = {"text_input": prompt, "stream": True, **VALUES}
        answer = httpx.post(url, json=body, timeout=60)
        assert answer.status_code == 400, answer.text
        assert f"in ensemble 'ensemble', {WHOLE}" in answer.text
    assert over_grpc(whole_only, prompt) == [wanted]
    with pytest.raises(InferenceServerException, match=r"stream: hooks\.py has answer\(text\)"):
        over_grpc(whole_only, prompt, stream=True)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("boom", "text_input: hooks.py: prompt raised ValueError: told to"),
        ("1, 2, 3, 4, 5, 6, 7, 8,", "hooks.py: answer raised ValueError: a nine"),
    ],
)
def test_a_hook_that_raises_is_that_requests_error_alone(
    whole_only: Server, prompt: str, message: str
) -> None:
    for port in (whole_only.settings.http_port, whole_only.triton_port):
        url = f"http://127.0.0.1:{port}{ENSEMBLE}/generate"
        answer = httpx.post(url, json={"text_input": prompt, **VALUES}, timeout=60)
        assert answer.status_code == 400
        assert answer.json() == {"error": f"in ensemble 'ensemble', {message}"}
    with pytest.raises(InferenceServerException) as caught:
        over_grpc(whole_only, prompt)
    assert str(caught.value.message()).endswith(message)
    assert over_grpc(whole_only, "The capital of France is")


def test_openai_s_api_runs_the_hooks(hooked: Server, http: httpx.Client) -> None:
    wanted = ask(http, chat(QUESTION), **VALUES)["text_output"].replace("Paris", "*****")
    with httpx.Client(base_url=hooked.settings.url, timeout=120) as client:
        body = {"prompt": QUESTION, **VALUES}
        whole = plain(post(client, COMPLETIONS, **body))
        assert whole["choices"][0]["text"] == wanted
        streamed = joined(events(client, COMPLETIONS, **body))
        assert streamed["choices"] == whole["choices"]


def test_openai_s_api_says_what_a_hook_rejects(whole_only: Server) -> None:
    with httpx.Client(base_url=whole_only.settings.url, timeout=120) as client:
        body = {"model": MODEL, "messages": user("Hi"), **VALUES}
        text = post(client, CHAT, **body)["choices"][0]["message"]["content"]
        assert text == text.upper() != text.lower()
        assert error(client, CHAT, {**body, "stream": True})["param"] == "stream"
        found = error(client, CHAT, {**body, "messages": user("boom")})
        assert found["param"] == "messages"
        assert "told to" in found["message"]
        nines = {"model": MODEL, "prompt": "9 9 9 9 9 9", "echo": False, **VALUES}
        found = error(client, COMPLETIONS, nines, status=500)
        assert "a nine" in found["message"]
