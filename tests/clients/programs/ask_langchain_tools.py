"""python ask_langchain_tools.py URL: LangChain's ChatOpenAI with tools, and an agent of it."""

import json
import sys
from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, wrap_model_call
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from tools_asked import MOST_TOKENS, QUESTION, RESULT, Report, Weather

(url,) = sys.argv[1:]
asked: dict[str, Any] = {
    "base_url": f"{url}/v1",
    "api_key": "none",
    "model": "ensemble",
    "max_tokens": MOST_TOKENS,
    "temperature": 0,
}


@tool(args_schema=Weather)
def weather(city: str, unit: str) -> str:
    """Tell the weather of a city."""
    return RESULT


@wrap_model_call
def first_calls(request: ModelRequest, ask: Callable[[ModelRequest], Any]) -> Any:
    """The model calls in its first turn, and answers when it knows what the tool gave."""
    told = any(isinstance(message, ToolMessage) for message in request.messages)
    one: Any = {"parallel_tool_calls": False}
    choice = "none" if told else "required"
    return ask(request.override(tool_choice=choice, model_settings=one))


def run(**more: Any) -> dict[str, Any]:
    """What an agent says and does, to its answer."""
    agent = create_agent(ChatOpenAI(**asked, **more), [weather], middleware=[first_calls])
    _, called, told, answer = agent.invoke({"messages": QUESTION})["messages"]
    streamed = [
        message
        for step in agent.stream({"messages": QUESTION}, stream_mode="updates")
        for update in step.values()
        for message in (update or {}).get("messages", ())
    ]
    for one, other in zip(streamed, (called, told, answer), strict=True):
        assert one.text == other.text
    (call,) = called.tool_calls
    return {
        "call": call["args"],
        "told": told.content,
        "text": answer.text,
    }


def streamed_call() -> dict[str, Any]:
    """The call that chunks add up to."""
    chat = ChatOpenAI(**asked).bind_tools(
        [weather], tool_choice="weather", parallel_tool_calls=False
    )
    total, *chunks = chat.stream(QUESTION)
    for chunk in chunks:
        total += chunk
    (call,) = total.tool_calls
    assert not total.invalid_tool_calls
    arguments: dict[str, Any] = call["args"]
    return arguments


def formed(method: str, **more: Any) -> dict[str, Any]:
    """An answer of a given form."""
    chat = ChatOpenAI(**asked, **more).with_structured_output(Report, method=method)
    return chat.invoke(QUESTION).model_dump()


responses = {"use_responses_api": True}
found = {
    "agents": {"chats": run(), "responses": run(**responses), "streaming": run(streaming=True)},
    "streamed call": streamed_call(),
    "formed": {
        "json_schema": formed("json_schema"),
        "function_calling": formed("function_calling"),
        "json_schema response": formed("json_schema", **responses),
    },
}
print(json.dumps(found))
