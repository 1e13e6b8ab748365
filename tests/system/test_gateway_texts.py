"""The gateway's texts with a real engine: byte for byte what `ensemble` itself answers."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.asking import ENSEMBLE, KOREAN, chat
from support.serving import serve, serve_demo
from support.two_ways import floats, joined
from trellis.server.process import Server

COUNTS = {f"return_{name}": True for name in ("num_input_tokens", "num_output_tokens")}
CASES: dict[str, dict[str, Any]] = {
    "a prompt": {"text_input": "The capital of France is"},
    "in a list": {"text_input": ["The capital of France is"], "max_tokens": [16]},
    "Korean": {"text_input": chat(f"Repeat: {KOREAN}"), "max_tokens": 48},
    "with the prompt": {"text_input": KOREAN, "exclude_input_in_output": False},
    "stop words": {"text_input": chat("Count from 1 to 9."), "stop_words": ["5, 6", "7"]},
    "a stop word inside a token": {"text_input": "The capital of France is", "stop_words": ["ari"]},
    "sampling": {"text_input": "Once", "temperature": 0.9, "top_p": 0.9, "seed": 7},
    "all that can be returned": {
        "text_input": "Once upon a time",
        "return_log_probs": True,
        "return_finish_reason": True,
        **COUNTS,
    },
    "a batch": {"text_input": ["Once", "The capital of France is"], "max_tokens": [4, 4]},
    "several sequences": {
        "text_input": "Once",
        "num_return_sequences": 2,
        "temperature": 0.8,
        "seed": 1,
    },
    "a value that is wrong": {"text_input": "Once", "top_p": 7},
    "with an id": {"id": "7 \\u00e4", "text_input": "Once"},
}


def triton_url(server: Server) -> str:
    """Triton's own port, behind the gateway."""
    return f"http://127.0.0.1:{server.triton_port}"


def decoded(server: Server) -> int:
    """How often `postprocessing` was asked so far."""
    url = f"{triton_url(server)}/v2/models/postprocessing/stats"
    with urllib.request.urlopen(url, timeout=10) as response:
        count: int = json.load(response)["model_stats"][0]["inference_count"]
    return count


@pytest.mark.promise("one answer")
@pytest.mark.parametrize("kind", ["generate", "generate_stream"])
@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_the_one_that_the_ensemble_gives(
    server: Server, case: str, kind: str
) -> None:
    body = {"max_tokens": 16, "stream": kind == "generate_stream", **CASES[case]}
    if "several" in case or case == "a batch":  # a list in a stream is an event for each
        if kind == "generate_stream":
            return
        body.pop("stream")
    url = f"{ENSEMBLE}/{kind}"
    with httpx.Client(timeout=120) as http:
        front = http.post(server.settings.url + url, json=body)
        direct = http.post(triton_url(server) + url, json=body)
    assert front.status_code == direct.status_code
    if kind == "generate" and "log_probs" in front.text:  # Triton's last digits are others
        assert joined(front.text) == joined(direct.text)
        return
    if kind == "generate":
        assert front.content == direct.content
        return
    # When chunks are made is the engine's affair: what they say together is not.
    assert said(front.content) == said(direct.content)


def said(events: bytes) -> tuple[str, dict[str, Any]]:
    """The text of a stream, the tokens that its events count, and the rest of its last event."""
    found = [json.loads(line[6:]) for line in events.decode().split("\n\n") if line.strip()]
    text = "".join(event.pop("text_output", "") for event in found)
    for event in found:
        event.pop("output_log_probs", None)
        if "cum_log_probs" in event:
            event["cum_log_probs"] = floats(event["cum_log_probs"]).tolist()
    tokens = sum(event.pop("num_output_tokens", 0) for event in found)
    return text, {**found[-1], "num_output_tokens": tokens}


def test_no_chunk_of_one_sequence_goes_through_postprocessing(server: Server) -> None:
    body = {"text_input": "Once upon a time", "max_tokens": 8, "stream": True}
    before = decoded(server)
    answered = httpx.post(f"{server.settings.url}{ENSEMBLE}/generate_stream", json=body, timeout=60)
    assert answered.content.count(b"data: ") > 1
    assert decoded(server) == before
    httpx.post(f"{triton_url(server)}{ENSEMBLE}/generate_stream", json=body, timeout=60)
    assert decoded(server) > before


def test_a_token_of_the_end_stays_in_a_text_that_shows_special_ones(
    demo_engine: tuple[Path, Path], tmp_path: Path
) -> None:
    shown = {"skip_special_tokens": "false"}
    body = {"text_input": chat("What is the capital of France?"), "max_tokens": 24, "end_id": -1}
    with serve_demo(demo_engine, tmp_path, shown) as running:
        urls = (running.settings.url, triton_url(running))
        for kind in ("generate", "generate_stream"):
            asked = {**body, "stream": kind == "generate_stream"}
            front, direct = (
                httpx.post(f"{url}{ENSEMBLE}/{kind}", json=asked, timeout=60).text for url in urls
            )
            if kind == "generate":
                assert "<|im_end|>" in direct
                assert front == direct
            else:
                assert said(front.encode()) == said(direct.encode())


def test_without_decoding_all_goes_through_postprocessing(demo_repo: Path, tmp_path: Path) -> None:
    with serve(demo_repo, tmp_path, gateway_decoding=False) as running:
        body = {"text_input": "The capital of France is", "max_tokens": 4}
        answered = httpx.post(f"{running.settings.url}{ENSEMBLE}/generate", json=body, timeout=60)
        assert answered.json()["text_output"]
        assert decoded(running) == 1
