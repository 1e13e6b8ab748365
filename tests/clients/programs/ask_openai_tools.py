"""python ask_openai_tools.py URL: chats with tools and of a given form by the package `openai`.

Answers and chunks are checked against the package's own types, strictly.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import openai
from tools_asked import AGAIN, MOST_TOKENS, QUESTION, RESULT, Report, Weather

(url,) = sys.argv[1:]
options: dict[str, Any] = {
    "base_url": f"{url}/v1",
    "api_key": "none",
    "_strict_response_validation": True,
}
client = openai.OpenAI(**options)
tool = openai.pydantic_function_tool(Weather)
asked: Any = {"model": "ensemble", "temperature": 0, "max_completion_tokens": MOST_TOKENS}
question: Any = {"role": "user", "content": QUESTION}
held: Any = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
usage: Any = {"stream_options": {"include_usage": True}}
Ask = Callable[..., Any]  # a chat's fields -> its message, as the client would send it back


def whole(**more: Any) -> Any:
    """A whole answer."""
    (choice,) = client.chat.completions.create(**asked, **more).choices
    return choice.finish_reason, choice.message


def parsed(**more: Any) -> Any:
    """A whole answer, whose calls and text are parsed."""
    (choice,) = client.chat.completions.parse(**asked, **more).choices
    return choice.finish_reason, choice.message


def streamed(**more: Any) -> Any:
    """The message that chunks add up to."""
    chunks = client.chat.completions.create(**asked, **usage, **more, stream=True)
    return added([chunk.choices[0] for chunk in chunks if chunk.choices])


def added(choices: list[Any]) -> Any:
    """What the deltas of chunks add up to: the first of a call has its name and its id."""
    content, calls = None, []
    for choice in choices:
        if choice.delta.content is not None:
            content = (content or "") + choice.delta.content
        for delta in choice.delta.tool_calls or ():
            if delta.index == len(calls):
                calls.append({"id": delta.id, "type": delta.type, "function": {}})
                calls[-1]["function"] = {"name": delta.function.name, "arguments": ""}
            else:
                assert (delta.id, delta.type, delta.function.name) == (None, None, None)
            calls[delta.index]["function"]["arguments"] += delta.function.arguments
    assert [choice.finish_reason for choice in choices[:-1]] == [None] * (len(choices) - 1)
    message = {"role": choices[0].delta.role, "content": content, "tool_calls": calls or None}
    return choices[-1].finish_reason, message


def helped(**more: Any) -> Any:
    """The message of the helper for streams, whose last event of a call has its arguments."""
    with client.chat.completions.stream(**asked, **more) as stream:
        events = list(stream)
        (choice,) = stream.get_final_completion().choices
    ends = [each for each in events if each.type == "tool_calls.function.arguments.done"]
    deltas = [each for each in events if each.type == "tool_calls.function.arguments.delta"]
    calls = choice.message.tool_calls or []
    assert [end.arguments for end in ends] == [call.function.arguments for call in calls]
    assert [end.parsed_arguments for end in ends] == [
        call.function.parsed_arguments for call in calls
    ]
    assert not calls or deltas[-1].arguments == calls[-1].function.arguments
    assert calls or any(event.type == "content.done" for event in events)
    return choice.finish_reason, choice.message


async def by_asyncio(**more: Any) -> Any:
    """A whole answer by the client for asyncio."""
    async with openai.AsyncOpenAI(**options) as waiting:
        (choice,) = (await waiting.chat.completions.create(**asked, **more)).choices
    return choice.finish_reason, choice.message


def conversation(ask: Ask) -> dict[str, Any]:
    """A call, what the tool gave, an answer, and a second call; the client's messages go back."""
    messages = [question]
    called, message = ask(messages=messages, **held)
    (call,) = plain(message)["tool_calls"]
    assert plain(message)["content"] is None
    result = {"role": "tool", "tool_call_id": call["id"], "content": RESULT}
    told = [*messages, message, result]
    ended, answer = ask(messages=told, tools=[tool], tool_choice="none")
    assert not plain(answer).get("tool_calls")
    again, last = ask(messages=[*told, answer, {"role": "user", "content": AGAIN}], **held)
    (second,) = plain(last)["tool_calls"]
    assert second["id"] != call["id"]
    return {
        "calls": [call["function"], second["function"]],
        "text": plain(answer)["content"],
        "ends": [called, ended, again],
    }


def plain(message: Any) -> Any:
    """A message as JSON has it, without what the client made of its parts."""
    if isinstance(message, dict):
        return message
    made = message.model_dump()
    for call in made.get("tool_calls") or ():
        call["function"].pop("parsed_arguments", None)
    return made


def formed() -> dict[str, Any]:
    """An answer of a given form: whole, and by the helper for streams."""
    form = {"messages": [question], "response_format": Report}
    reason, message = parsed(**form)
    helped_reason, helped_message = helped(**form)
    assert (reason, message.parsed) == (helped_reason, helped_message.parsed)
    assert reason == "stop"
    return message.parsed.model_dump()


def parsed_call() -> dict[str, Any]:
    """The arguments of a named function, as the model that its schema was made of."""
    chosen = {"type": "function", "function": {"name": "Weather"}}
    reason, message = parsed(messages=[question], tools=[tool], tool_choice=chosen)
    (call,) = message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)
    assert reason == "tool_calls"
    return call.function.parsed_arguments.model_dump()


found = {
    "tool": tool,
    "conversations": {
        "whole": conversation(whole),
        "parsed": conversation(parsed),
        "stream": conversation(streamed),
        "stream helper": conversation(helped),
        "asyncio": conversation(lambda **more: asyncio.run(by_asyncio(**more))),
    },
    "formed": formed(),
    "parsed call": parsed_call(),
}
print(json.dumps(found))
