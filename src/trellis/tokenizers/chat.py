# SPDX-License-Identifier: Apache-2.0
"""Chat messages to a prompt: the tokenizer's own `chat_template`, or a form built in here.

>>> llama2([{"role": "user", "content": "Hello"}], bos="<s>", eos="</s>")
'<s>[INST] Hello [/INST]'

A template sees what transformers 5 lets it see, and gives the text that `apply_chat_template`
gives: keys of a message that are null are left out, and reasoning is found under each of its
names. It runs in a process of its own, within limits (template_process.py). Left out: tools that
are Python functions; a tool is its JSON schema.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.template_process import TemplateFailedError, render_template

Message = Mapping[str, Any]
"""{"role": "user", "content": "Hello"}; the content is text, null, or a list of parts."""
Plain = Sequence[Mapping[str, str]]
"""Messages whose contents are text."""

_GIVEN = ("messages", "tools", "documents", "add_generation_prompt")
_REASONING = ("reasoning_content", "thinking", "reasoning")
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "  # transformers' own: a template may look at the text


class Template(NamedTuple):
    """A template's text, and the file that it is from."""

    source: str
    where: str


@dataclass(frozen=True)
class Conversation:
    """What a prompt is made of; see Tokenizer.chat_prompt."""

    messages: Sequence[Message]
    add_generation_prompt: bool = True
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    continue_final_message: bool | str = False
    template: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class ChatTemplate:
    """A function from a conversation to a prompt, with its errors made clear."""

    def __init__(self, form: Callable[[Conversation], str], sources: Iterable[str] = ()) -> None:
        """`sources`: of its templates, if it has any."""
        self._form = form
        self._sources = tuple(sources)

    def speaks_of(self, name: str) -> bool:
        """Whether a role, such as `developer`, or a variable, such as `tools`, is known to it."""
        return any(name in source for source in self._sources)

    def render(self, conversation: Conversation) -> str:
        """The prompt. Raises TokenizerError that names the message or the template's complaint."""
        check_conversation(conversation)
        messages = [_without_nulls(message) for message in conversation.messages]
        conversation = dataclasses.replace(conversation, messages=messages)
        if conversation.continue_final_message:
            return self._continued(conversation, messages)
        return self._form(conversation)

    def _continued(self, conversation: Conversation, messages: list[dict[str, Any]]) -> str:
        """The prompt up to where the last message's text ends, for the model to go on from."""
        wanted = conversation.continue_final_message
        key = wanted if isinstance(wanted, str) else "content"
        text, messages[-1] = _marked(messages[-1], key)
        prompt = self._form(conversation)
        mark = _MARK.strip()
        if text.strip() not in prompt or mark not in prompt:
            raise TokenizerError(
                f"continue_final_message: the chat template leaves out or changes {key!r} of the "
                f"last message"
            )
        end = prompt.rindex(mark)
        kept = prompt[:end]
        return kept if prompt[end:].startswith(_MARK) else kept.rstrip()

    @classmethod
    def jinja(
        cls, templates: Mapping[str, Template], special_tokens: Mapping[str, Any]
    ) -> "ChatTemplate":
        """Templates in jinja2's language; compiled when first used, since few servers do.

        Args:
            templates: By name; the one that is used if none is named is `default`, or `tool_use`
                for a conversation with tools.
            special_tokens: {"bos_token": "<s>", ...}, which a template sees under these names.
        """

        def render(conversation: Conversation) -> str:
            template = _choose(templates, conversation)
            _check_continued(template, conversation.continue_final_message)
            variables = {**special_tokens, **conversation.arguments}
            variables |= {name: getattr(conversation, name) for name in _GIVEN}
            try:
                return render_template(template.source, variables)
            except TemplateFailedError as error:
                raise TokenizerError(f"{template.where}: chat_template: {error}") from error

        return cls(render, (each.source for each in templates.values()))

    @classmethod
    def built_in(
        cls, name: str, function: Callable[[Plain, bool], str], join: str = ""
    ) -> "ChatTemplate":
        """A form written in Python, which knows roles and text and nothing else.

        Args:
            name: What an error calls it: "Llama-2's form".
            function: From messages, and whether to add the generation prompt, to the prompt.
            join: What stands between the text parts of one message.
        """

        def render(conversation: Conversation) -> str:
            for key in ("tools", "documents", "template"):
                if getattr(conversation, key):
                    raise TokenizerError(
                        f"{key}: this tokenizer has no chat template of its own, and {name} has "
                        f"no {key}: add chat_template.jinja"
                    )
            plain = [
                _plain(f"messages[{index}]", message, name, join)
                for index, message in enumerate(conversation.messages)
            ]
            return function(plain, conversation.add_generation_prompt)

        return cls(render)

    @classmethod
    def missing(cls, name: str) -> "ChatTemplate":
        """Stands for no template: every use is an error that says what to add."""

        def refuse(conversation: Conversation) -> NoReturn:
            raise TokenizerError(
                f"this tokenizer ({name}) has no chat template: add chat_template.jinja, or "
                f"chat_template in tokenizer_config.json, or send a finished prompt"
            )

        return cls(refuse)


def check_conversation(conversation: Conversation) -> None:
    """Raise TokenizerError, naming the field, unless everything is of its type.

    What a template makes of roles, parts, tools and documents is for the template to say.
    """
    messages = conversation.messages
    if not isinstance(messages, (list, tuple)):
        raise TokenizerError(f"messages: must be a list, not {_kind(messages)}")
    if not messages:
        raise TokenizerError("messages: needs at least one message")
    for index, message in enumerate(messages):
        _check_message(f"messages[{index}]", message)
    for key in ("tools", "documents"):
        _check_objects(key, getattr(conversation, key))
    if not isinstance(conversation.arguments, Mapping):
        raise TokenizerError(f"arguments: must be an object, not {_kind(conversation.arguments)}")
    for key in conversation.arguments:
        if not isinstance(key, str) or key in _GIVEN:
            raise TokenizerError(f"arguments: {key!r} cannot be an argument of a chat template")
    if conversation.continue_final_message and conversation.add_generation_prompt:
        raise TokenizerError("continue_final_message: needs add_generation_prompt to be false")


def _check_message(name: str, message: Any) -> None:
    if not isinstance(message, Mapping):
        raise TokenizerError(f"{name}: must be an object, not {_kind(message)}")
    if not isinstance(message.get("role"), str):
        raise TokenizerError(f"{name}: needs a string 'role', not {_kind(message.get('role'))}")
    content = message.get("content")
    if content is not None and not isinstance(content, (str, list, tuple)):
        raise TokenizerError(
            f"{name}: 'content' must be a string, null or a list of parts, not {_kind(content)}"
        )
    for index, part in enumerate(() if content is None or isinstance(content, str) else content):
        if not isinstance(part, (str, Mapping)):
            raise TokenizerError(
                f"{name}: content[{index}] must be an object or a string, not {_kind(part)}"
            )


def _check_objects(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, (list, tuple)):
        raise TokenizerError(f"{name}: must be a list of objects, not {_kind(value)}")
    for index, each in enumerate(value):
        if not isinstance(each, Mapping):
            raise TokenizerError(f"{name}[{index}]: must be an object, not {_kind(each)}")


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _without_nulls(message: Message) -> dict[str, Any]:
    """A message as transformers 5 gives it to a template: no nulls, all names of reasoning."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[key] for key in _REASONING if key in kept), None)
    if reasoning is None:
        return kept
    return {"thinking": reasoning, **kept, "reasoning_content": reasoning}


def _choose(templates: Mapping[str, Template], conversation: Conversation) -> Template:
    """The template that is named, or the one that transformers would take."""
    name = conversation.template
    if name is None:
        by_tools = conversation.tools is not None and "tool_use" in templates
        name = "tool_use" if by_tools else "default"
    if name in templates:
        return templates[name]
    names = ", ".join(sorted(templates))
    where = next((template.where for template in templates.values()), "chat_template")
    if conversation.template is None:
        raise TokenizerError(
            f"{where}: has several chat templates and no 'default': name one (template): {names}"
        )
    raise TokenizerError(f"{where}: has no chat template {name!r}; it has: {names}")


def _check_continued(template: Template, wanted: bool | str) -> None:
    """Raise TokenizerError if the template never speaks of the field to go on from."""
    key = wanted if isinstance(wanted, str) else "content"
    names = _REASONING if key in _REASONING else (key,)
    if wanted and not any(name in template.source for name in names):
        raise TokenizerError(f"{template.where}: continue_final_message: it has no {key!r}")


def _marked(message: dict[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    """The text that the model is to go on from, and a message where a mark follows that text."""
    value = message.get(key)
    if isinstance(value, str):
        keys = [each for each in _REASONING if message.get(each) == value]
        keys = keys if key in _REASONING else [key]
        return value, message | dict.fromkeys(keys, value + _MARK)
    parts = list(value) if isinstance(value, (list, tuple)) else []
    for index in reversed(range(len(parts))):
        text = parts[index].get("text") if isinstance(parts[index], Mapping) else None
        if isinstance(text, str):
            parts[index] = {**parts[index], "text": text + _MARK}
            return text, {**message, key: parts}
    raise TokenizerError(
        f"continue_final_message: the last message has no text in {key!r} to go on from"
    )


def _plain(where: str, message: Message, form: str, join: str) -> dict[str, str]:
    """A message of nothing but text, for a form that knows nothing else."""
    for key in ("tool_calls", "tool_call_id"):
        if message.get(key):
            raise TokenizerError(f"{where}: {form} has no {key}: add chat_template.jinja")
    content = message.get("content")
    if content is None:
        raise TokenizerError(f"{where}: 'content' is null, for which {form} has no place")
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    texts = []
    for index, part in enumerate(content):
        text = part if isinstance(part, str) else part.get("text")
        kind = "text" if isinstance(part, str) else part.get("type", "text")
        if kind != "text" or not isinstance(text, str):
            raise TokenizerError(
                f"{where}: content[{index}] is of the type {kind!r}; {form} takes text only"
            )
        texts.append(text)
    return {"role": message["role"], "content": join.join(texts)}


def llama2(messages: Plain, *, bos: str = "<s>", eos: str = "</s>", space: str = "") -> str:
    """Llama-2's own form, for tokenizers of its kind that carry no template.

    <s>[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST] {answer} </s><s>[INST] ... [/INST]

    Answers and all users but the first are stripped, as Meta's example did. space: ' ' for a
    tokenizer that puts none behind <s> by itself; Meta encoded each turn as a text of its own.
    Raises TokenizerError unless users and assistants take turns.
    """
    system, turns = take_turns(messages)
    head = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system else ""
    prompt = ""
    for index, turn in enumerate(turns):
        content = turn["content"]
        if turn["role"] == "assistant":
            prompt += f" {content.strip()} {eos}"
        elif index == 0:
            prompt += f"{bos}{space}[INST] {head}{content} [/INST]"
        else:
            prompt += f"{bos}{space}[INST] {content.strip()} [/INST]"
    return prompt


def with_headers(
    messages: Plain, add_generation_prompt: bool, start: str, end: str, turn: str
) -> str:
    """Meta's form from Llama 3 on: each message, stripped, under a header with its role.

    start, end, turn: the names of the tokens around a role, and of that behind a message.
    """
    prompt = "<|begin_of_text|>"
    for message in messages:
        prompt += f"<|{start}|>{message['role']}<|{end}|>\n\n{message['content'].strip()}<|{turn}|>"
    return prompt + f"<|{start}|>assistant<|{end}|>\n\n" if add_generation_prompt else prompt


def take_turns(messages: Plain) -> tuple[str, list[Mapping[str, str]]]:
    """The system message, '' if there is none, and the others, which must alternate.

    Raises TokenizerError that says whose turn it was.
    """
    turns = list(messages)
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else ""
    if not turns:
        raise TokenizerError("messages: needs at least one message of the role 'user'")
    for index, turn in enumerate(turns):
        expected = ("user", "assistant")[index % 2]
        if turn["role"] != expected:
            raise TokenizerError(
                f"messages: after the system message, 'user' and 'assistant' take turns; "
                f"found {turn['role']!r} where {expected!r} was due"
            )
    return system, turns
