"""OpenAI's API over TensorRT-LLM's own engine, with the stand-in for it: every kind of contract."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.openai_api import CHAT, COMPLETIONS, MODEL, error, events, joined, plain, post, user
from support.standin import Script, read_journal
from support.standin_server import Served, serve
from support.waiting import wait_for
from trellis.tokenizers import Tokenizer

RELEASES = ("0.5.0", "0.9.0", "0.17.0", "1.x")
TEXT = "안녕하세요 세계 😀 naïve"


@pytest.fixture(scope="module", params=RELEASES)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
    llama: Tokenizer,
) -> Iterator[Served]:
    """Answers a thousand tokens to what ends in " all", TEXT to all else."""
    scripts = [
        Script(prompt=llama.encode_fragment(" all"), answer=[1526] * 1000),
        Script(prompt=llama.encode_fragment(" fail"), answer=[1526], failure="broken"),
        Script(answer=llama.encode_fragment(TEXT)),
    ]
    folder = tmp_path_factory.mktemp(f"openai-{request.param}")
    delay: dict[str, Any] = {"token_delay_us": "2000"}
    with serve(request.param, folder, standin_library, llama_folder, scripts, **delay) as running:
        yield running


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.server.settings.url, timeout=30) as client:
        yield client


def answer(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """The answer, which has to be the same whole and streamed."""
    whole = plain(post(http, path, **body))
    usage = {"stream_options": {"include_usage": True}}
    assert joined(events(http, path, **body, **usage)) == whole
    return whole


def test_text_counts_and_reasons_are_right(http: httpx.Client, llama: Tokenizer) -> None:
    tokens = len(llama.encode_fragment(TEXT))
    for most, text, reason in ((tokens + 9, TEXT, "stop"), (3, None, "length")):
        found = answer(http, COMPLETIONS, prompt="Say it", max_tokens=most)
        assert found["choices"][0]["finish_reason"] == reason
        assert text is None or found["choices"][0]["text"].strip() == text
        assert found["usage"]["prompt_tokens"] == len(llama.encode("Say it"))
        assert found["usage"]["completion_tokens"] == min(most, tokens)


def test_a_chat_is_in_the_model_s_form(
    served: Served, http: httpx.Client, llama: Tokenizer
) -> None:
    found = answer(http, CHAT, messages=user("Hello"), max_tokens=50)
    assert found["choices"][0]["text"].strip() == TEXT
    ids = llama.chat_ids(user("Hello"))
    assert found["usage"]["prompt_tokens"] == len(ids)
    received = served.received()
    assert received["input_ids"][: len(ids)] == ids


def test_sequences_and_prompts_are_requests_of_their_own(
    served: Served, http: httpx.Client
) -> None:
    before = len(asked(served))
    found = answer(http, COMPLETIONS, prompt=["Say it", "Say it again"], n=2, seed=7, max_tokens=40)
    assert [each["text"].strip() for each in found["choices"]] == [TEXT] * 4
    assert sorted(seeds(asked(served)[before:])) == sorted([7, 8] * 4)


def seeds(requests: list[dict[str, Any]]) -> list[int]:
    """Of those requests that have one."""
    given = [
        request["inputs"].get("random_seed") or request["inputs"].get("seed")
        for request in requests
    ]
    return [seed["values"][0] for seed in given if seed]


def test_sampled_answers_have_seeds_of_their_own(served: Served, http: httpx.Client) -> None:
    """Without one the engine begins each answer with the same."""
    before = len(asked(served))
    for _ in range(2):
        post(http, COMPLETIONS, prompt="Say it", n=2, max_tokens=4)
    assert len(set(seeds(asked(served)[before:]))) == 4
    before = len(asked(served))
    post(http, COMPLETIONS, prompt="Say it", max_tokens=4, temperature=0)
    assert seeds(asked(served)[before:]) == []


STOPS = (["세계"], ["하세", "never"], ["요 세"], ["na"], [" 😀"], ["ï"])


@pytest.mark.promise("stop words")
@pytest.mark.parametrize("stop", STOPS, ids=[" ".join(each) for each in STOPS])
@pytest.mark.parametrize("include", [False, True])
def test_an_answer_ends_at_its_stop_string(
    http: httpx.Client, stop: list[str], include: bool
) -> None:
    """The engine ends at its tokens, if at all, and leaves it in the text."""
    kept = stop[0] if include else ""
    body = {"prompt": "Say it", "max_tokens": 99, "stop": stop}
    body["include_stop_str_in_output"] = include
    for found in (
        plain(post(http, COMPLETIONS, **body)),
        joined(events(http, COMPLETIONS, **body)),
    ):
        (choice,) = found["choices"]
        assert choice["text"].lstrip() == TEXT[: TEXT.index(stop[0])] + kept
        assert choice["finish_reason"] == "stop"


def test_a_stream_that_ends_at_a_stop_string_is_ended_at_the_engine(
    served: Served, http: httpx.Client, llama: Tokenizer
) -> None:
    word = llama.decode([1526] * 3).strip()
    before = len(ended(served))
    body = {"prompt": "Say it all", "max_tokens": 1000, "stop": word}
    pieces = events(http, COMPLETIONS, **body, stream_options={"include_usage": True})
    assert pieces[-2]["choices"][0]["finish_reason"] == "stop"
    assert pieces[-1]["usage"]["completion_tokens"] < 500
    if served.release != "0.5.0":  # no release before 0.6.1 can be stopped
        wait_for(lambda: len(ended(served)) > before)


def test_a_whole_answer_that_ends_at_a_stop_string_is_too(
    served: Served, http: httpx.Client, llama: Tokenizer
) -> None:
    word = llama.decode([1526] * 3).strip()
    before = len(ended(served))
    answer = post(http, COMPLETIONS, prompt="Say it all", max_tokens=1000, stop=word, n=2)
    assert [each["finish_reason"] for each in answer["choices"]] == ["stop"] * 2
    assert answer["usage"]["completion_tokens"] < 500
    if served.release != "0.5.0":
        wait_for(lambda: len(ended(served)) > before + 1)


def test_what_the_engine_does_not_have_is_rejected_by_name(http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": user("Hi"), "max_tokens": 4}
    for more, param in (
        ({"min_p": 0.5}, "min_p"),
        ({"logprobs": True, "top_logprobs": 3}, "top_logprobs"),
        ({"priority": 5}, "priority"),
    ):
        assert error(http, CHAT, {**body, **more})["param"] == param


@pytest.mark.promise("rejections")
def test_structure_and_tools_are_rejected_by_name_where_the_repository_has_none(
    http: httpx.Client,
) -> None:
    body = {"model": MODEL, "messages": user("Say it"), "max_tokens": 4}
    form = {"type": "json_object"}
    tools = [{"type": "function", "function": {"name": "f"}}]
    for more, param in (
        ({"response_format": form}, "response_format"),
        ({"tools": tools}, "tools"),
    ):
        found = error(http, CHAT, {**body, **more})
        assert found["param"] == param
        assert found["message"].startswith(f"{param}: ")


def test_a_bias_by_id_reaches_the_engine_or_is_rejected(served: Served, http: httpx.Client) -> None:
    body = {"model": MODEL, "prompt": "Say it", "max_tokens": 4, "logit_bias": {"5": -3}}
    if served.release in ("0.5.0", "0.9.0"):
        response = http.post(COMPLETIONS, json=body)
        assert response.status_code in (200, 400)
        if response.status_code == 400:
            assert response.json()["error"]["param"] == "logit_bias"
            return
    else:
        post(http, COMPLETIONS, **body)
    bias = served.received()["embedding_bias"]
    assert bias[5] == -3
    assert sum(map(abs, bias)) == 3


def test_an_engine_that_fails_is_an_error(http: httpx.Client) -> None:
    response = http.post(COMPLETIONS, json={"model": MODEL, "prompt": "Please fail"})
    assert response.status_code >= 400
    assert "broken" in response.json()["error"]["message"]
    body = {"model": MODEL, "prompt": "Please fail", "stream": True}
    text = http.post(COMPLETIONS, json=body).text
    assert "broken" in text
    assert "[DONE]" not in text


@pytest.mark.promise("disconnects")
def test_a_client_that_leaves_ends_its_request(served: Served, http: httpx.Client) -> None:
    if served.release == "0.5.0":
        return  # no release before 0.6.1 can be stopped
    body = {"model": MODEL, "prompt": "Say it all", "max_tokens": 1000, "stream": True}
    before = len(ended(served))
    with http.stream("POST", COMPLETIONS, json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
    wait_for(lambda: len(ended(served)) > before)


def asked(served: Served) -> list[dict[str, Any]]:
    """The engine's requests, in the order in which they came."""
    return [e for e in read_journal(served.folder / "journal") if e["event"] == "request"]


def ended(served: Served) -> list[dict[str, Any]]:
    """What the engine's journal says of requests that were ended before their time."""
    events = read_journal(served.folder / "journal")
    return [e for e in events if e["event"] not in ("request", "response")]
