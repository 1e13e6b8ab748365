"""Structure and tools on a real server: always valid, and rejected by the name of the field."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import pytest

from support.openai_api import (
    CHAT,
    COMPLETIONS,
    MODEL,
    RESPONSES,
    error,
    events,
    joined,
    post,
    user,
)

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "array", "items": {"enum": ["Mon", "Tue"]}, "maxItems": 3},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
DRAWN = 16  # answers, each of a seed of its own
LENGTH = 100


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


def drawn(http: httpx.Client, body: dict[str, Any], count: int = DRAWN) -> list[dict[str, Any]]:
    """Choices of temperature 1, eight at a time."""

    def one(seed: int) -> dict[str, Any]:
        asked = {"messages": user("Where?"), "max_tokens": LENGTH, "temperature": 1, "seed": seed}
        choice: dict[str, Any] = post(http, CHAT, **asked, **body)["choices"][0]
        return choice

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def test_no_document_is_invalid_however_it_is_drawn(http: httpx.Client) -> None:
    complete = 0
    for choice in drawn(http, {"response_format": form(CITY)}):
        if choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), CITY)
            complete += 1
        else:
            assert choice["finish_reason"] == "length"
    assert complete >= DRAWN * 0.8


def test_a_required_call_has_valid_arguments_however_it_is_drawn(http: httpx.Client) -> None:
    fields = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    complete = 0
    for choice in drawn(http, fields):
        if choice["finish_reason"] == "length":
            continue
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        jsonschema.validate(json.loads(call["function"]["arguments"]), CITY)
        complete += 1
    assert complete >= DRAWN * 0.8


def test_an_answer_is_a_call_or_of_the_form_where_both_are_asked_for(http: httpx.Client) -> None:
    fields = {"tools": [WEATHER, CLOCK], "response_format": form(CITY)}
    ways = set()
    for choice in drawn(http, fields):
        ways.add(choice["finish_reason"])
        if choice["finish_reason"] == "stop":
            jsonschema.validate(json.loads(choice["message"]["content"]), CITY)
        elif choice["finish_reason"] == "tool_calls":
            assert choice["message"]["content"] is None
            (call,) = choice["message"]["tool_calls"]
            schema = CITY if call["function"]["name"] == "weather" else {"type": "object"}
            jsonschema.validate(json.loads(call["function"]["arguments"]), schema)
    assert ways >= {"stop", "tool_calls"}


def test_the_named_function_is_called(http: httpx.Client) -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    body = {"messages": user("Weather?"), "tools": [WEATHER, CLOCK], "tool_choice": named}
    choice = post(http, CHAT, **body, max_tokens=LENGTH, temperature=0)["choices"][0]
    assert [each["function"]["name"] for each in choice["message"]["tool_calls"]] == ["clock"]


def test_some_tools_may_be_called_alone(http: httpx.Client) -> None:
    clock = {"type": "function", "function": {"name": "clock"}}
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [clock]},
    }
    for found in drawn(http, {"tools": [WEATHER, CLOCK], "tool_choice": choice}, 4):
        for call in found["message"].get("tool_calls", ()):
            assert call["function"]["name"] == "clock"


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[0-9]{3}-[0-9]{4}"}, r"[0-9]{3}-[0-9]{4}"),
        ({"structured_outputs": {"choice": ["yes", "안녕 🙂"]}}, r"yes|안녕 🙂"),
        ({"response_format": {"type": "grammar", "grammar": 'root ::= "x" [a-c]'}}, r"x[a-c]"),
    ],
)
def test_text_is_what_it_is_held_to(
    http: httpx.Client, fields: dict[str, Any], pattern: str
) -> None:
    for choice in drawn(http, fields, 8):
        assert re.fullmatch(pattern, choice["message"]["content"]), choice
        assert choice["finish_reason"] == "stop"


def test_completions_and_responses_are_held_to_it_too(http: httpx.Client) -> None:
    body = {"prompt": "The city:", "max_tokens": LENGTH, "temperature": 1, "seed": 4}
    choice = post(http, COMPLETIONS, **body, response_format=form(CITY))["choices"][0]
    jsonschema.validate(json.loads(choice["text"]), CITY)
    text = {"format": {"type": "json_schema", "name": "answer", "schema": CITY}}
    asked = {"input": "Where?", "max_output_tokens": LENGTH, "temperature": 0, "text": text}
    response = post(http, RESPONSES, **asked)
    assert response["status"] == "completed"
    jsonschema.validate(json.loads(response["output"][0]["content"][0]["text"]), CITY)
    assert response["text"] == text


def test_a_response_s_call_is_the_chat_s(http: httpx.Client) -> None:
    flat = [{"type": "function", **WEATHER["function"]}]  # type: ignore[dict-item]
    greedy = {"temperature": 0, "tool_choice": "required", "parallel_tool_calls": False}
    chat = post(http, CHAT, messages=user("Where?"), max_tokens=LENGTH, tools=[WEATHER], **greedy)
    (call,) = chat["choices"][0]["message"]["tool_calls"]
    answer = post(http, RESPONSES, input="Where?", max_output_tokens=LENGTH, tools=flat, **greedy)
    (item,) = answer["output"]
    assert item["type"] == "function_call"
    assert {"name": item["name"], "arguments": item["arguments"]} == call["function"]
    again = [
        {"role": "user", "content": "Where?"},
        item,
        {"type": "function_call_output", "call_id": item["call_id"], "output": "sunny"},
    ]
    second = post(http, RESPONSES, input=again, max_output_tokens=8, temperature=0, tools=flat)
    messages = [
        *user("Where?"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"},
    ]
    told = post(http, CHAT, messages=messages, max_tokens=8, temperature=0, tools=[WEATHER])
    content = told["choices"][0]["message"]["content"]
    assert second["output"][0]["content"][0]["text"] == content
    assert second["usage"]["input_tokens"] == told["usage"]["prompt_tokens"]


def test_arguments_come_as_they_are_made(http: httpx.Client) -> None:
    body = {"messages": user("Where?"), "max_tokens": LENGTH, "temperature": 0}
    fields = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    chunks = events(http, CHAT, **body, **fields)
    pieces = [
        call["function"]["arguments"]
        for chunk in chunks
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert sum(map(bool, pieces)) > 5
    assert json.loads("".join(pieces))
    assert joined(chunks)["choices"][0]["calls"][0]["arguments"] == "".join(pieces)


@pytest.mark.promise("rejections")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": form({"type": "nonsense"})}, "response_format.json_schema.schema"),
        (
            {"response_format": form({"not": {"type": "string"}})},
            "response_format.json_schema.schema",
        ),
        ({"guided_json": {"$ref": "https://example.com/x"}}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_grammar": "root ::= nothing"}, "guided_grammar"),
        ({"guided_grammar": 'start: "lark"'}, "guided_grammar"),
        ({"guided_regex": "a", "bad_words": ["x"]}, "bad_words"),
        ({"guided_regex": "a", "min_tokens": 5}, "min_tokens"),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}
                ],
                "tool_choice": "required",
            },
            "tools[0].function.parameters",
        ),
    ],
)
def test_what_cannot_be_held_to_is_rejected_by_its_name(
    http: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    body = {"model": MODEL, "messages": user("Hi"), "max_tokens": 8, **fields}
    for streams in (False, True):
        found = error(http, CHAT, {**body, "stream": streams})
        assert found["param"] == param, found
        assert found["message"].startswith(f"{param}: "), found
        assert "guided_decoding" not in found["message"], found
