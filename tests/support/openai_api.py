"""Asking OpenAI's API over HTTP, and its streams joined to whole answers."""

import json
from typing import Any

import httpx

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MODEL = "ensemble"


def post(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    """An answer's JSON; fails the test if it is an error."""
    response = http.post(path, json={"model": MODEL, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def error(http: httpx.Client, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    """The error object of a request that is rejected; fails the test unless it is complete."""
    response = http.post(path, json=body)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    assert found.keys() == {"error"}
    assert found["error"].keys() == {"message", "type", "param", "code"}
    inner: dict[str, Any] = found["error"]
    return inner


def events(http: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, without its end; fails the test if that is not [DONE]."""
    response = http.post(path, json={"model": MODEL, "stream": True, **body})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    data = [
        line.removeprefix("data: ")
        for line in response.text.splitlines()
        if line.startswith("data: ")
    ]
    if path != RESPONSES:
        assert data.pop() == "[DONE]"
    return [json.loads(each) for each in data]


def joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Chunks of a chat or of completions as the whole answer that they add up to.

    Fails the test for a chunk without text, log probabilities, usage or an end.
    """
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = chunk.get("usage") or usage
        assert chunk["choices"] or chunk["usage"], chunk
        for each in chunk["choices"]:
            delta = each.get("delta", {"content": each.get("text")})
            text, calls = delta.get("content") or "", delta.get("tool_calls", [])
            thoughts = delta.get("reasoning_content", "")
            something = text or calls or thoughts
            assert something or each["logprobs"] or each["finish_reason"], chunk
            made = choices.setdefault(each["index"], _fresh())
            assert made["finish_reason"] is None, "a chunk after the last"
            made["text"] += text
            made["reasoning"] += thoughts
            _add_calls(made["calls"], calls)
            made["finish_reason"] = each["finish_reason"]
            _add(made, each["logprobs"])
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


def _fresh() -> dict[str, Any]:
    return {"text": "", "reasoning": "", "calls": [], "logprobs": None, "finish_reason": None}


def _add_calls(made: list[dict[str, str]], deltas: list[dict[str, Any]]) -> None:
    for delta in deltas:
        function = delta["function"]
        if delta["index"] == len(made):
            assert delta["type"] == "function"
            assert delta["id"]
            made.append({"name": function["name"], "arguments": ""})
        else:
            assert set(delta) == {"index", "function"}, "only the first has a name and an id"
        made[delta["index"]]["arguments"] += function["arguments"]


def _add(made: dict[str, Any], logprobs: dict[str, Any] | None) -> None:
    if logprobs is None:
        return
    lists = {name: value for name, value in logprobs.items() if isinstance(value, list)}
    if made["logprobs"] is None:
        made["logprobs"] = {name: [] for name in lists}
    for name, value in lists.items():
        made["logprobs"][name] += value


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """A whole answer in the form of `joined`."""
    choices = []
    for each in answer["choices"]:
        message = each.get("message", {"content": each.get("text")})
        calls = message.get("tool_calls", [])
        assert message["content"] is not None or calls
        logprobs = each["logprobs"]
        if logprobs is not None:
            logprobs = {name: v for name, v in logprobs.items() if isinstance(v, list)}
        made = {
            "text": message["content"] or "",
            "reasoning": message.get("reasoning_content", ""),
            "calls": [call["function"] for call in calls],
            "logprobs": logprobs,
            "finish_reason": each["finish_reason"],
        }
        choices.append(made)
    return {"choices": choices, "usage": answer["usage"]}


def user(text: str) -> list[dict[str, str]]:
    """The messages of a chat of one question."""
    return [{"role": "user", "content": text}]
