# SPDX-License-Identifier: Apache-2.0
"""`input` of a response: its items, and the messages that they are.

A call and what the model thought before it are parts of the message of the assistant that they
follow; what a function gave is a message of the tool. Thoughts that nothing of the assistant's
follows, as of an answer that was cut off in them, are of its last message, or one without text.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.fields import Fields
from trellis.gateway.openai.messages import CalledFunction, Message, Parts, ToolCall

Status = str | None


class InputMessage(Fields):
    """An item of `input`: a message."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Parts
    id: str | None = None
    status: Status = None
    phase: str | None = None


class InputCall(Fields):
    """An item of `input`: a call of an earlier answer."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status = None
    caller: Any = None
    namespace: str | None = None


class InputResult(Fields):
    """An item of `input`: what a function gave."""

    type: Literal["function_call_output"]
    call_id: str | None = None
    output: str | Parts
    id: str | None = None
    name: str | None = None
    status: Status = None
    caller: Any = None
    namespace: str | None = None


class InputReasoning(Fields):
    """An item of `input`: what the model thought for an earlier answer."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Parts | None = None
    content: Parts | None = None
    encrypted_content: str | None = None
    status: Status = None


Item = InputMessage | InputCall | InputResult | InputReasoning
TYPES = ("message", "function_call", "function_call_output", "reasoning")


def _type_of(item: Any) -> str:
    """An item's type; a message need not say it."""
    found = item.get("type") if isinstance(item, dict) else None
    return "message" if found is None else str(found)


Tagged = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[InputCall, Tag("function_call")]
    | Annotated[InputResult, Tag("function_call_output")]
    | Annotated[InputReasoning, Tag("reasoning")],
    Discriminator(
        _type_of,
        custom_error_type="unknown_item",
        custom_error_message=f"of no type that is read here; send one of {', '.join(TYPES)}",
    ),
]
InputItems = Annotated[list[Tagged], Field(fail_fast=True, min_length=1)]


def read_items(
    instructions: str | None, items: str | Sequence[Item]
) -> tuple[list[Message], list[str]]:
    """The conversation, and where in the body each message is from. Raises OpenAIError."""
    messages: list[Message] = []
    places: list[str] = []
    if instructions:
        messages.append(Message(role="system", content=instructions))
        places.append("instructions")
    if isinstance(items, str):
        return [*messages, Message(role="user", content=items)], [*places, "input"]
    if all(isinstance(item, InputReasoning) for item in items):
        raise bad("input", "nothing but reasoning; send a message", "invalid_value")
    thoughts, thought_at = "", ""
    for at, item in enumerate(items):
        place = f"input[{at}]"
        if isinstance(item, InputReasoning):
            thoughts, thought_at = thoughts + _thoughts(item, place), place
            continue
        if thoughts and not _is_answer(item):
            _add_thoughts(messages, places, thoughts, thought_at)
            thoughts = ""
        if isinstance(item, InputCall) and messages and messages[-1].role == "assistant":
            _add_call(messages[-1], item)
        else:
            messages.append(_message(item))
            places.append(place)
        if thoughts:
            _add_thoughts(messages, places, thoughts, place)
            thoughts = ""
    if thoughts:
        _add_thoughts(messages, places, thoughts, thought_at)
    return messages, places


def _is_answer(item: Item) -> bool:
    """Whether the model made it."""
    is_message = isinstance(item, InputMessage) and item.role == "assistant"
    return is_message or isinstance(item, InputCall)


def _add_thoughts(messages: list[Message], places: list[str], thoughts: str, place: str) -> None:
    """Add them to the message of the assistant that is the last, or is then."""
    if not messages or messages[-1].role != "assistant":
        messages.append(Message(role="assistant", content=""))
        places.append(place)
    messages[-1].reasoning_content = (messages[-1].reasoning_content or "") + thoughts


def _message(item: InputMessage | InputCall | InputResult) -> Message:
    if isinstance(item, InputCall):
        message = Message(role="assistant")
        _add_call(message, item)
        return message
    if isinstance(item, InputResult):
        return Message(role="tool", content=item.output, tool_call_id=item.call_id, name=item.name)
    return Message(role=item.role, content=item.content)


def _add_call(message: Message, item: InputCall) -> None:
    function = CalledFunction(name=item.name, arguments=item.arguments)
    made = ToolCall(id=item.call_id, type="function", function=function)
    message.tool_calls = [*(message.tool_calls or ()), made]


def _thoughts(item: InputReasoning, place: str) -> str:
    """The text of an item; of its summary where that is all there is."""
    if item.encrypted_content:
        what = "cannot be read here; send the text as content, or leave the item out"
        raise bad(f"{place}.encrypted_content", what, "unsupported_parameter")
    thoughts = "".join(_texts(item.content, f"{place}.content"))
    summary = "\n\n".join(_texts(item.summary, f"{place}.summary"))
    return thoughts or summary


def _texts(parts: Parts | None, place: str) -> list[str]:
    texts = []
    for at, part in enumerate(parts or ()):
        text = part.get("text")
        if not isinstance(text, str):
            raise bad(f"{place}[{at}].text", "missing or no text; send a string")
        texts.append(text)
    return texts
