# SPDX-License-Identifier: Apache-2.0
"""The messages of a chat, checked, and the prompt that the model's own template makes of them."""

import asyncio
import contextlib
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from trellis.gateway.openai.asking import encode
from trellis.gateway.openai.errors import OpenAIError, bad, named
from trellis.gateway.openai.fields import FAIL_FAST, Fields
from trellis.gateway.openai.served import Served
from trellis.gateway.state import State
from trellis.parsers import Format
from trellis.tokenizers import TokenizerError

TEXT_PARTS = ("text", "input_text", "output_text")
REFUSAL = "refusal"  # a part of an assistant's, and the field of its text
MEDIA = "only text is read here; send parts of the type text"
TEMPLATE = "chat_template: "
_FILE = re.compile(r"^.*?: (?=chat_template: |continue_final_message: |has (?:no|several) chat)")
INLINE_BYTES = 2048  # of text: shorter prompts are encoded at once, others by a thread

# Variables of chat templates that say how much a model thinks.
EFFORT, THINKS = "reasoning_effort", "enable_thinking"
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

Parts = Annotated[list[dict[str, Any]], FAIL_FAST]


class CalledFunction(Fields):
    """What a message's call calls."""

    name: str
    arguments: str | None = None  # JSON
    parsed_arguments: Any = None  # what openai's parse() made of them, in its messages


class ToolCall(Fields):
    """A call of an earlier answer."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunction
    index: int | None = None  # as chunks have it


class Message(Fields):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Parts | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], FAIL_FAST] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    audio: Any = None
    annotations: Any = None
    parsed: Any = None  # what openai's parse() made of the content
    function_call: Any = None


Messages = Annotated[list[Message], Field(fail_fast=True, min_length=1)]


def plain_messages(
    messages: Sequence[Message], developer: bool, places: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Messages as a chat template gets them: their contents are text.

    `developer`: whether the template knows this role; else it is `system`. `places`: where in the
    body each is from. Raises OpenAIError, naming the place.
    """
    places = places or [f"messages[{at}]" for at in range(len(messages))]
    return [
        _plain(place, message, developer) for place, message in zip(places, messages, strict=True)
    ]


def _plain(where: str, message: Message, developer: bool) -> dict[str, Any]:
    if message.audio is not None:
        raise bad(f"{where}.audio", MEDIA, "unsupported_parameter")
    if message.function_call is not None:
        raise bad(f"{where}.function_call", "send tool_calls", "unsupported_parameter")
    role = message.role
    if role == "developer" and not developer:
        role = "system"
    made: dict[str, Any] = {"role": role}
    content = _content(where, message)
    if content is not None:
        made["content"] = content
    elif role != "assistant" or not message.tool_calls:
        raise bad(f"{where}.content", "missing; send text", "missing_required_parameter")
    for name in ("name", "tool_call_id", "reasoning_content", "reasoning"):
        value = getattr(message, name)
        if value is not None:
            made[name] = value
    if message.tool_calls:
        made["tool_calls"] = [_call(each) for each in message.tool_calls]
    return made


def _content(where: str, message: Message) -> str | None:
    """The text of a message, behind it that of a refusal; None: it has neither."""
    content, refusal = None, message.refusal
    if message.content is not None:
        content = _text(f"{where}.content", message.content, message.role)
    if refusal is not None and message.role != "assistant":
        what = "only a message of the assistant has one; leave it out"
        raise bad(f"{where}.refusal", what, "unsupported_parameter")
    if not refusal:
        return content
    return f"{content}\n{refusal}" if content else refusal


def tell_tools(
    messages: list[dict[str, Any]], tools: Sequence[dict[str, Any]], form: Format | None
) -> list[dict[str, Any]]:
    """Messages for a chat template that knows no tools: they and earlier calls are text there."""
    if form is None:
        return messages
    made = [_with_calls(message, form) for message in messages]
    if not tools:
        return made
    listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    told = f"You can call these functions:\n{listed}\n{form.instructions}"
    if made[0]["role"] in ("system", "developer"):
        made[0] = {**made[0], "content": f"{made[0]['content']}\n\n{told}"}
        return made
    return [{"role": "system", "content": told}, *made]


def _with_calls(message: dict[str, Any], form: Format) -> dict[str, Any]:
    """A message whose calls stand in its content."""
    calls = message.get("tool_calls")
    if not calls or form.written is None:
        return message
    texts = [message["content"]] if message.get("content") else []
    for call in calls:
        function = call["function"]
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        texts.append(form.written(function["name"], arguments))
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**kept, "content": "\n".join(texts)}


def _call(call: ToolCall) -> dict[str, Any]:
    """A call as chat templates know it: its arguments are an object, where they are one."""
    arguments: Any = call.function.arguments or "{}"
    with contextlib.suppress(ValueError):
        read = json.loads(arguments)
        arguments = read if isinstance(read, dict) else arguments
    made: dict[str, Any] = {
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
    return made if call.id is None else {"id": call.id, **made}


def _text(where: str, content: str | list[dict[str, Any]], role: str) -> str:
    """The text of a message; of several parts a line each."""
    if isinstance(content, str):
        return content
    texts = []
    for at, part in enumerate(content):
        kind = part.get("type")
        refuses = kind == REFUSAL and role == "assistant"
        if kind not in TEXT_PARTS and not refuses:
            raise bad(f"{where}[{at}].type", f"{str(kind)[:32]!r}: {MEDIA}", "unsupported_content")
        name = REFUSAL if refuses else "text"
        text = part.get(name)
        if not isinstance(text, str):
            raise bad(f"{where}[{at}].{name}", "missing or no text; send a string", "invalid_value")
        texts.append(text)
    return "\n".join(texts)


def effort_arguments(
    served: Served, effort: str | None, param: str = EFFORT
) -> dict[str, str | bool]:
    """What the chat template is told of how much to think. Raises OpenAIError if it has no word."""
    if effort is None:
        return {}
    if served.template_knows(EFFORT):
        return {EFFORT: effort}
    if served.template_knows(THINKS):
        return {THINKS: effort != "none"}
    raise bad(param, "the model's chat template knows none; leave it out", "unsupported_parameter")


async def chat_prompt(
    state: State,
    served: Served,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    arguments: dict[str, Any] | None = None,
    param: str = "messages",
    places: Sequence[str] = (),
    tools: Sequence[dict[str, Any]] = (),
) -> tuple[str, list[int]]:
    """The prompt of a chat and its ids. Raises OpenAIError.

    A process renders the template, and a thread waits for it; `arguments`: the template's own.
    `param`: the field of the messages; `places`: see plain_messages. `tools`: what the model is
    told of them.
    """
    plain = plain_messages(messages, served.template_knows("developer"), places)
    if not served.template_knows("tools"):
        plain, tools = tell_tools(plain, tools, served.format(calls=True)), ()

    def work() -> tuple[str, list[int] | None]:
        text = served.tokenizer.chat_prompt(
            plain,
            add_generation_prompt,
            tools=tools or None,
            continue_final_message=continue_final_message,
            arguments=arguments,
        )
        return text, encode(served, text, True, param) if served.thread_safe else None

    loop = asyncio.get_running_loop()
    try:
        text, ids = await loop.run_in_executor(state.encoders, work)
    except TokenizerError as error:
        raise _rejected(str(error), param) from None
    return text, ids if ids is not None else encode(served, text, True, param)


def _rejected(message: str, param: str) -> OpenAIError:
    """What a template complains of, without where on this machine it lies.

    >>> _rejected("/x/tokenizer_config.json: chat_template: no system role", "messages").message
    'messages: the chat template says: no system role'
    """
    message = _FILE.sub("", message)
    if message.startswith(TEMPLATE):
        what = f"the chat template says: {message.removeprefix(TEMPLATE)}"
        return bad(param, what, "invalid_value")
    message, name = named(message, {"prompt": param, "messages": param})
    return OpenAIError(400, message if name else f"{param}: {message}", param=name or param)


async def text_ids(state: State, served: Served, text: str, bare: bool, param: str) -> list[int]:
    """The ids of a text; a long one is encoded by a thread. Raises OpenAIError."""
    if len(text) <= INLINE_BYTES or not served.thread_safe:
        return encode(served, text, bare, param)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(state.encoders, encode, served, text, bare, param)
