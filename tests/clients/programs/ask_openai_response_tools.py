"""python ask_openai_response_tools.py URL: responses with tools and of a given form, by `openai`.

Answers and events are checked against the package's own types, strictly.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import openai
from tools_asked import AGAIN, MOST_TOKENS, QUESTION, RESULT, Report, Weather

(url,) = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", _strict_response_validation=True)
tool = openai.pydantic_responses_function_tool(Weather)
asked: Any = {"model": "ensemble", "temperature": 0, "max_output_tokens": MOST_TOKENS}
question: Any = {"role": "user", "content": QUESTION}
held: Any = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
Ask = Callable[..., Any]  # a response's fields -> it


def whole(**more: Any) -> Any:
    """A whole response."""
    return client.responses.create(**asked, **more)


def parsed(**more: Any) -> Any:
    """A whole response, whose calls and text are parsed."""
    return client.responses.parse(**asked, **more)


def streamed(**more: Any) -> Any:
    """The response of the last event, which has the items of those before."""
    events = list(client.responses.create(**asked, **more, stream=True))
    check_numbers(events)
    done = [each.item for each in events if each.type == "response.output_item.done"]
    assert done == events[-1].response.output
    arguments = ["" for _ in done]
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            arguments[event.output_index] += event.delta
        if event.type == "response.function_call_arguments.done":
            assert event.arguments == arguments[event.output_index]
    assert arguments == [getattr(item, "arguments", "") for item in done]
    return events[-1].response


def helped(**more: Any) -> Any:
    """The response of the helper for streams, which adds up the events itself."""
    with client.responses.stream(**asked, **more) as stream:
        events = list(stream)
        last = stream.get_final_response()
    check_numbers(events)
    snapshots = [
        event.snapshot for event in events if event.type == "response.function_call_arguments.delta"
    ]
    calls = [item for item in last.output if item.type == "function_call"]
    assert not calls or snapshots[-1] == calls[-1].arguments
    return last


def check_numbers(events: list[Any]) -> None:
    """They are numbered from 0, and the last says that the response is complete."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"


def conversation(ask: Ask) -> dict[str, Any]:
    """A call, what the tool gave, an answer, and a second call; the responses' items go back."""
    called = ask(input=[question], **held)
    (call,) = called.output
    assert (call.type, call.status) == ("function_call", "completed")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    told = [question, *called.output, result]
    answer = ask(input=told, tools=[tool], tool_choice="none")
    last = ask(input=[*told, *answer.output, {"role": "user", "content": AGAIN}], **held)
    (second,) = last.output
    assert second.call_id != call.call_id
    return {
        "calls": [{"name": each.name, "arguments": each.arguments} for each in (call, second)],
        "text": answer.output_text,
        "ends": [called.status, answer.status, last.status],
    }


def formed() -> dict[str, Any]:
    """A response of a given form: whole, and by the helper for streams."""
    form = {"input": QUESTION, "text_format": Report}
    response, last = parsed(**form), helped(**form)
    assert response.output_parsed == last.output_parsed
    assert response.status == "completed"
    return response.output_parsed.model_dump()


def parsed_call() -> dict[str, Any]:
    """The arguments of a named function, as the model that its schema was made of."""
    chosen = {"type": "function", "name": "Weather"}
    response = parsed(input=QUESTION, tools=[tool], tool_choice=chosen)
    (call,) = response.output
    assert isinstance(call.parsed_arguments, Weather)
    assert response.status == "completed"
    return call.parsed_arguments.model_dump()


found = {
    "tool": tool,
    "conversations": {
        "whole": conversation(whole),
        "parsed": conversation(parsed),
        "stream": conversation(streamed),
        "stream helper": conversation(helped),
    },
    "formed": formed(),
    "parsed call": parsed_call(),
}
print(json.dumps(found))
