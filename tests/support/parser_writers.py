# SPDX-License-Identifier: Apache-2.0
"""Turns as the models of each format write them: what a format's parser reads, written by hand."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from support.parser_calls import Turn


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _raw(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def hermes(turn: Turn) -> str:
    """Lines of JSON between tags."""
    calls = [
        f'<tool_call>\n{{"name": "{name}", "arguments": {_json(arguments)}}}\n</tool_call>'
        for name, arguments in turn.calls
    ]
    return "\n".join([turn.text, *calls] if turn.text else calls)


def llama3_json(turn: Turn) -> str:
    """JSON objects alone."""
    calls = [
        f'{{"name": "{name}", "parameters": {_json(arguments)}}}' for name, arguments in turn.calls
    ]
    return "; ".join(calls) or turn.text


def llama4_pythonic(turn: Turn) -> str:
    """A list of calls in Python."""
    calls = [
        f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
        for name, arguments in turn.calls
    ]
    return f"[{', '.join(calls)}]" if calls else turn.text


def mistral(turn: Turn) -> str:
    """A token, a name, a token, JSON."""
    calls = [f"[TOOL_CALLS]{name}[ARGS]{_json(arguments)}" for name, arguments in turn.calls]
    return turn.text + "".join(calls)


def qwen3_coder(turn: Turn) -> str:
    """A tag for each argument."""

    def arguments(given: Mapping[str, Any]) -> str:
        return "".join(
            f"<parameter={key}>\n{_raw(value)}\n</parameter>\n" for key, value in given.items()
        )

    calls = [
        f"<tool_call>\n<function={name}>\n{arguments(given)}</function>\n</tool_call>"
        for name, given in turn.calls
    ]
    return (f"{turn.text}\n\n" if turn.text and calls else turn.text) + "\n".join(calls)


def glm(turn: Turn) -> str:
    """A tag for each argument's name and for its value."""

    def arguments(given: Mapping[str, Any]) -> str:
        return "".join(
            f"<arg_key>{key}</arg_key><arg_value>{_raw(value)}</arg_value>"
            for key, value in given.items()
        )

    return turn.text + "".join(
        f"<tool_call>{name}{arguments(given)}</tool_call>" for name, given in turn.calls
    )


def deepseek_v3(turn: Turn) -> str:
    """JSON in blocks of code between special tokens."""
    calls = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{_json(given)}\n```"
        "<｜tool▁call▁end｜>"
        for name, given in turn.calls
    ]
    section = f"<｜tool▁calls▁begin｜>{chr(10).join(calls)}<｜tool▁calls▁end｜>"
    return turn.text + (section if calls else "")


def harmony(turn: Turn) -> str:
    """A message a channel, and one for the first call."""
    messages = []
    if turn.reasoning:
        messages.append(f"<|channel|>analysis<|message|>{turn.reasoning}<|end|>")
    if turn.text and turn.calls:
        messages.append(f"<|channel|>commentary<|message|>{turn.text}<|end|>")
    elif turn.text:
        messages.append(f"<|channel|>final<|message|>{turn.text}")
    for name, given in turn.calls[:1]:
        header = f"<|channel|>commentary to=functions.{name} <|constrain|>json<|message|>"
        messages.append(header + _json(given))
    return "<|start|>assistant".join(messages)


WRITERS: dict[str, Callable[[Turn], str]] = {
    each.__name__: each
    for each in (
        hermes, llama3_json, llama4_pythonic, mistral, qwen3_coder, glm, deepseek_v3, harmony
    )
}  # fmt: skip


# Ends of prompts, where a format's answer depends on them.
PROMPTS = {"harmony": "<|start|>assistant", "glm": "<|assistant|></think>"}


def written(form: str, turn: Turn) -> Turn:
    """What of a turn its format has a place for."""
    if form == "harmony":
        return turn._replace(calls=turn.calls[:1])
    turn = turn._replace(reasoning="")
    if form in ("qwen3_coder", "glm"):  # where nothing tells the word null from null
        turn = turn._replace(
            calls=[
                (name, {key: "nil" if text == "null" else text for key, text in given.items()})
                for name, given in turn.calls
            ]
        )
    if turn.calls and form in ("llama3_json", "llama4_pythonic"):
        turn = turn._replace(text="")
    return turn


def held(form: str, turn: Turn) -> str:
    """A turn of nothing but calls as a structure lets it be written where one must be called."""
    if form != "mistral":
        return WRITERS[form](turn)
    calls = [
        f'{{"name": "{name}", "arguments": {_json(arguments)}}}' for name, arguments in turn.calls
    ]
    return f"[{', '.join(calls)}]" if calls else ""
