"""Tools and answers of a given form, by clients and frameworks, against the gateway's OpenAI API.

The demo's model calls where it must: `required` and named functions are held to their schemas.
"""

from typing import Any

import pytest

from clients.client_runs import ask, curl_openai, node_modules, venv
from clients.programs.tools_asked import AGAIN, MOST_TOKENS, QUESTION, RESULT, Report, Weather
from trellis.server.settings import ServerSettings

OVER = "OpenAI's API"
SECONDS = 600  # of a program that asks some twenty times
HELD = {"tool_choice": "required", "parallel_tool_calls": False}


def curl_conversation(settings: ServerSettings, tool: Any) -> dict[str, Any]:
    """What curl gets of a chat with a call, an answer, and a second call."""
    messages: list[Any] = [{"role": "user", "content": QUESTION}]

    def chat(**fields: Any) -> dict[str, Any]:
        asked = {"messages": messages, "max_tokens": MOST_TOKENS, "tools": [tool], **fields}
        answer = curl_openai(settings, "/v1/chat/completions", **asked)
        message: dict[str, Any] = answer["choices"][0]["message"]
        return message

    called = chat(**HELD)
    (call,) = called["tool_calls"]
    messages += [called, {"role": "tool", "tool_call_id": call["id"], "content": RESULT}]
    answer = chat(tool_choice="none")
    messages += [answer, {"role": "user", "content": AGAIN}]
    (second,) = chat(**HELD)["tool_calls"]
    return {"calls": [call["function"], second["function"]], "text": answer["content"]}


def check(found: dict[str, Any], expected: dict[str, Any], reasons: list[str]) -> None:
    """A program's conversations are curl's, and what it parsed has its form."""
    for name, conversation in found["conversations"].items():
        assert conversation == {**expected, "ends": reasons}, name
    for call in expected["calls"]:
        assert call["name"] == "Weather"
        Weather.model_validate_json(call["arguments"], strict=True)
    Weather.model_validate(found["parsed call"], strict=True)
    Report.model_validate(found["formed"], strict=True)


@pytest.mark.client("openai", OVER)
def test_chats_of_the_package_openai_call_tools_in_every_way(streams: ServerSettings) -> None:
    found = ask(venv("venv"), "ask_openai_tools.py", streams.url, seconds=SECONDS)
    assert len(found["conversations"]) == 5
    expected = curl_conversation(streams, found["tool"])
    check(found, expected, ["tool_calls", "stop", "tool_calls"])


@pytest.mark.client("openai", OVER)
def test_responses_of_the_package_openai_call_tools_in_every_way(streams: ServerSettings) -> None:
    found = ask(venv("venv"), "ask_openai_response_tools.py", streams.url, seconds=SECONDS)
    assert len(found["conversations"]) == 4
    flat = {name: value for name, value in found["tool"].items() if name != "type"}
    expected = curl_conversation(streams, {"type": "function", "function": flat})
    check(found, expected, ["completed"] * 3)


@pytest.mark.client("openai (npm)", OVER)
def test_the_package_openai_of_npm_calls_tools(streams: ServerSettings) -> None:
    more = {"NODE_MODULES": str(node_modules())}
    found = ask("node", "ask_openai_tools_node.mjs", streams.url, more=more, seconds=SECONDS)
    whole = found["calls"]["whole"]
    ((name, arguments),) = whole["calls"]
    assert (name, whole["content"], whole["finish_reason"]) == ("Weather", None, "tool_calls")
    weather = Weather.model_validate_json(arguments, strict=True)
    assert found["calls"] == dict.fromkeys(("whole", "parsed", "stream", "stream helper"), whole)
    assert found["told"][0] == weather.model_dump()
    for report in found["formed"].values():
        Report.model_validate(report, strict=True)
    assert found["formed"].keys() == {"chat", "response"}


@pytest.mark.client("LangChain ChatOpenAI", OVER)
def test_an_agent_of_langchain_calls_a_tool_and_answers(streams: ServerSettings) -> None:
    found = ask(venv("venv-api"), "ask_langchain_tools.py", streams.url, seconds=SECONDS)
    agent = found["agents"]["chats"]
    assert agent["text"]
    check_agent(agent)
    assert found["agents"] == dict.fromkeys(("chats", "responses", "streaming"), agent)
    assert found["streamed call"] == agent["call"]
    for report in found["formed"].values():
        Report.model_validate(report, strict=True)
    assert len(found["formed"]) == 3


@pytest.mark.client("instructor", OVER)
def test_instructor_gets_answers_of_a_given_form(streams: ServerSettings) -> None:
    found = ask(venv("venv-agents"), "ask_instructor.py", streams.url, seconds=SECONDS)
    assert found.keys() == {"tool_call", "tools_strict", "json_schema_mode"}
    for report in found.values():
        Report.model_validate(report, strict=True)


@pytest.mark.client("pydantic-ai", OVER)
def test_an_agent_of_pydantic_ai_calls_a_tool_and_answers_in_its_form(
    streams: ServerSettings,
) -> None:
    found = ask(venv("venv-agents"), "ask_pydantic_ai.py", streams.url, seconds=SECONDS)
    for form in ("text", "tool", "native"):
        chats, responses = found.pop(f"{form}, chats"), found.pop(f"{form}, responses")
        assert chats == responses
        check_agent(chats)
        if form == "text":
            assert chats["output"]
        else:
            Report.model_validate(chats["output"], strict=True)
    assert not found


def check_agent(done: dict[str, Any]) -> None:
    """The tool was called with valid arguments, and what it gave was told."""
    Weather.model_validate(done["call"], strict=True)
    assert done["told"] == RESULT
