"""OpenAI's own clients, and those of frameworks, unchanged, against the gateway's OpenAI API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.client_runs import PROMPT, TOKENS, ask, curl_openai, node_modules, venv
from support.serving import serve_demo
from trellis.server.settings import ServerSettings

OVER = "OpenAI's API"
STOP = " city"
REJECTED = {  # what is wrong -> the client's error
    "model": {"class": "NotFoundError", "param": "model", "code": "model_not_found"},
    "temperature": {"class": "BadRequestError", "param": "temperature", "code": "invalid_value"},
}
Answers = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def expected(streams: ServerSettings) -> Answers:
    """What curl gets of every endpoint: text, why it ended, and how many tokens there are."""
    messages = [{"role": "user", "content": PROMPT}]
    path = "/v1/chat/completions"
    chat = curl_openai(streams, path, messages=messages, max_tokens=TOKENS)
    stopped = curl_openai(streams, path, messages=messages, max_tokens=TOKENS, stop=STOP)
    text = curl_openai(streams, "/v1/completions", prompt=PROMPT, max_tokens=TOKENS)
    response = curl_openai(streams, "/v1/responses", input=PROMPT, max_output_tokens=TOKENS)
    (part,) = response["output"][0]["content"]
    found = {
        "chat": _answer(chat, chat["choices"][0]["message"]["content"]),
        "stopped": _answer(stopped, stopped["choices"][0]["message"]["content"]),
        "text": _answer(text, text["choices"][0]["text"]),
    }
    assert part["text"] == found["chat"]["text"]
    assert found["stopped"]["finish_reason"] == "stop"
    assert found["chat"]["text"].startswith(found["stopped"]["text"] + STOP)
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
    streams: ServerSettings, expected: Answers
) -> None:
    answer = ask(venv("venv"), "ask_openai_client.py", streams.url, PROMPT, str(TOKENS), STOP)
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
    small: ServerSettings, expected: Answers
) -> None:
    answer = ask(venv("venv"), "ask_openai_busy.py", small.url, PROMPT, str(TOKENS))
    assert answer["rejected"] == {"class": "InternalServerError", "status": 503, "after": "1"}
    assert answer["text"] == expected["text"]["text"]
    assert answer["retries"] >= 1


@pytest.mark.client("openai (npm)", OVER)
def test_the_package_openai_of_npm_gets_what_curl_gets(
    streams: ServerSettings, expected: Answers
) -> None:
    more = {"NODE_MODULES": str(node_modules())}
    answer = ask("node", "ask_openai_node.mjs", streams.url, PROMPT, str(TOKENS), more=more)
    assert answer["models"] == ["ensemble"]
    check(answer["answers"], expected, 7)
    assert answer["errors"] == REJECTED


@pytest.mark.client("LangChain ChatOpenAI", OVER)
def test_langchain_gets_what_curl_gets(streams: ServerSettings, expected: Answers) -> None:
    answer = ask(venv("venv-api"), "ask_langchain_openai.py", streams.url, PROMPT, str(TOKENS))
    assert len(answer["chats"]) == 7
    for name, chat in answer["chats"].items():
        reason = {"finish_reason": "max_output_tokens"} if "response" in name else {}
        assert chat == expected["chat"] | reason, name
    assert answer["texts"] == dict.fromkeys(("whole", "stream"), expected["text"]["text"])


@pytest.mark.client("LlamaIndex OpenAILike", OVER)
def test_llama_index_gets_what_curl_gets(streams: ServerSettings, expected: Answers) -> None:
    answer = ask(venv("venv-api"), "ask_llama_index_openai.py", streams.url, PROMPT, str(TOKENS))
    ways = ("whole", "stream", "asyncio")
    said = expected["chat"]["text"]
    assert answer["chats"] == dict.fromkeys((*ways, "asyncio stream"), said)
    assert answer["texts"] == dict.fromkeys(ways, expected["text"]["text"])
    assert answer["usage"] == {name: expected[name]["usage"] for name in ("chat", "text")}


@pytest.mark.client("LiteLLM", OVER)
def test_litellm_gets_what_curl_gets(streams: ServerSettings, expected: Answers) -> None:
    answer = ask(venv("venv"), "ask_litellm_openai.py", streams.url, PROMPT, str(TOKENS))
    assert answer["chats"] == dict.fromkeys(("whole", "stream", "asyncio"), expected["chat"])
    assert answer["texts"] == dict.fromkeys(("whole", "stream"), expected["text"])
    assert answer["response"] == expected["chat"]["text"]
    assert answer["error"] == "NotFoundError"
