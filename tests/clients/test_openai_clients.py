"""OpenAI's own clients, and those of frameworks, unchanged, against the gateway's OpenAI API."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.client_runs import PROMPT, TOKENS, ask, curl_openai, node_modules, venv
from support.serving import serve_demo
from trellis.server.settings import ServerSettings

OVER = "OpenAI's API"
REJECTED = {  # what is wrong -> the client's error
    "model": {"class": "NotFoundError", "param": "model", "code": "model_not_found"},
    "temperature": {"class": "BadRequestError", "param": "temperature", "code": "invalid_value"},
}
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": PROMPT}]
LEAST = 16  # max_output_tokens that OpenAI takes, and LiteLLM sends
Answers = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Cut:
    """What ends an answer before its own end."""

    tokens: int
    stop: str


@pytest.fixture(scope="module")
def cut(streams: ServerSettings) -> Cut:
    """Fewer tokens than the chat's answer has, and a word of these.

    How long the answer is depends on the model's rounding, so on the processor.
    """
    free = curl_openai(streams, CHAT, messages=MESSAGES, max_tokens=64)
    tokens = min(TOKENS, free["usage"]["completion_tokens"] - 2)
    chat = curl_openai(streams, CHAT, messages=MESSAGES, max_tokens=tokens)
    assert chat["choices"][0]["finish_reason"] == "length"
    return Cut(tokens, " " + chat["choices"][0]["message"]["content"].split()[-3])


@pytest.fixture(scope="module")
def expected(streams: ServerSettings, cut: Cut) -> Answers:
    """What curl gets of every endpoint: text, why it ended, and how many tokens there are."""
    chat = curl_openai(streams, CHAT, messages=MESSAGES, max_tokens=cut.tokens)
    stopped = curl_openai(streams, CHAT, messages=MESSAGES, max_tokens=cut.tokens, stop=cut.stop)
    text = curl_openai(streams, "/v1/completions", prompt=PROMPT, max_tokens=cut.tokens)
    response = curl_openai(streams, "/v1/responses", input=PROMPT, max_output_tokens=cut.tokens)
    (part,) = response["output"][0]["content"]
    found = {
        "chat": _answer(chat, chat["choices"][0]["message"]["content"]),
        "stopped": _answer(stopped, stopped["choices"][0]["message"]["content"]),
        "text": _answer(text, text["choices"][0]["text"]),
    }
    assert part["text"] == found["chat"]["text"]
    assert found["stopped"]["finish_reason"] == "stop"
    assert found["chat"]["text"].startswith(found["stopped"]["text"] + cut.stop)
    return found


def _answer(found: dict[str, Any], text: str) -> dict[str, Any]:
    used = found["usage"]
    counts = [used["prompt_tokens"], used["completion_tokens"], used["total_tokens"]]
    return {"text": text, "finish_reason": found["choices"][0]["finish_reason"], "usage": counts}


def check(answers: Answers, expected: Answers, names: int) -> None:
    """Each answer, by what it was asked ("chat stream"), is the one that curl gets."""
    assert len(answers) == names
    for name, answer in answers.items():
        assert answer == expected[name.split()[0].replace("response", "chat")], name


@pytest.mark.client("openai", OVER)
def test_the_package_openai_gets_what_curl_gets_in_every_way(
    streams: ServerSettings, expected: Answers, cut: Cut
) -> None:
    answer = ask(
        venv("venv"), "ask_openai_client.py", streams.url, PROMPT, str(cut.tokens), cut.stop
    )
    assert answer["models"] == ["ensemble"]
    check(answer["blocking"], expected, 9)
    check(answer["asyncio"], expected, 6)
    assert "".join(answer["tokens"]) == expected["chat"]["text"]
    errors = answer["errors"]
    assert {name: errors[name] for name in REJECTED} == REJECTED
    assert (errors["stream"]["class"], errors["stream"]["param"]) == (
        "BadRequestError",
        "max_completion_tokens",
    )
    assert (errors["field"]["class"], errors["field"]["param"]) == ("BadRequestError", "best")
    assert errors["input"]["param"] == "previous_response_id"
    assert errors["embeddings"]["class"] == "BadRequestError"
    assert errors["one model"]["class"] == "NotFoundError"


@pytest.fixture(scope="module")
def small(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerSettings]:
    """A server that answers one prompt, and lets one more wait."""
    settings = {"triton_max_batch_size": "1", "max_queue_size": "1"}
    with serve_demo(demo_engine, tmp_path_factory.mktemp("small"), settings) as server:
        yield server.settings


@pytest.mark.client("openai", OVER)
def test_the_package_openai_asks_again_where_there_is_no_room(
    small: ServerSettings, expected: Answers, cut: Cut
) -> None:
    answer = ask(venv("venv"), "ask_openai_busy.py", small.url, PROMPT, str(cut.tokens))
    assert answer["rejected"] == {"class": "InternalServerError", "status": 503, "after": "1"}
    assert answer["text"] == expected["text"]["text"]
    assert answer["retries"] >= 1


@pytest.mark.client("openai (npm)", OVER)
def test_the_package_openai_of_npm_gets_what_curl_gets(
    streams: ServerSettings, expected: Answers, cut: Cut
) -> None:
    more = {"NODE_MODULES": str(node_modules())}
    answer = ask("node", "ask_openai_node.mjs", streams.url, PROMPT, str(cut.tokens), more=more)
    assert answer["models"] == ["ensemble"]
    check(answer["answers"], expected, 7)
    assert answer["errors"] == REJECTED


@pytest.mark.client("LangChain ChatOpenAI", OVER)
def test_langchain_gets_what_curl_gets(
    streams: ServerSettings, expected: Answers, cut: Cut
) -> None:
    answer = ask(venv("venv-api"), "ask_langchain_openai.py", streams.url, PROMPT, str(cut.tokens))
    assert len(answer["chats"]) == 7
    for name, chat in answer["chats"].items():
        reason = {"finish_reason": "max_output_tokens"} if "response" in name else {}
        assert chat == expected["chat"] | reason, name
    assert answer["texts"] == dict.fromkeys(("whole", "stream"), expected["text"]["text"])


@pytest.mark.client("LlamaIndex OpenAILike", OVER)
def test_llama_index_gets_what_curl_gets(
    streams: ServerSettings, expected: Answers, cut: Cut
) -> None:
    answer = ask(
        venv("venv-api"), "ask_llama_index_openai.py", streams.url, PROMPT, str(cut.tokens)
    )
    ways = ("whole", "stream", "asyncio")
    said = expected["chat"]["text"]
    assert answer["chats"] == dict.fromkeys((*ways, "asyncio stream"), said)
    assert answer["texts"] == dict.fromkeys(ways, expected["text"]["text"])
    assert answer["usage"] == {name: expected[name]["usage"] for name in ("chat", "text")}


@pytest.mark.client("LiteLLM", OVER)
def test_litellm_gets_what_curl_gets(streams: ServerSettings, expected: Answers, cut: Cut) -> None:
    answer = ask(venv("venv"), "ask_litellm_openai.py", streams.url, PROMPT, str(cut.tokens))
    assert answer["chats"] == dict.fromkeys(("whole", "stream", "asyncio"), expected["chat"])
    assert answer["texts"] == dict.fromkeys(("whole", "stream"), expected["text"])
    most = max(cut.tokens, LEAST)
    free = curl_openai(streams, CHAT, messages=MESSAGES, max_tokens=most)
    assert answer["response"] == free["choices"][0]["message"]["content"]
    assert answer["error"] == "NotFoundError"
