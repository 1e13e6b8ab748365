# SPDX-License-Identifier: Apache-2.0
"""Calls as the models' own chat templates write them are read as the calls that they were."""

import json
from typing import Any

import pytest

from families.test_families import FOLDERS
from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, Reasoning, Setup, Text, Tool
from trellis.parsers.registry import load
from trellis.repository.parser_formats import find_parser
from trellis.tokenizers.chat import Conversation
from trellis.tokenizers.files import read_config

pytestmark = pytest.mark.skipif(
    not FOLDERS.is_dir(), reason="the families are not here: `make test-families` fetches them"
)

PARSERS = {
    "qwen2_5": "hermes",
    "qwen3": "think+hermes",
    "minicpm_v4_5": "think+hermes",
    "mistral_nemo": "mistral",
    "llama3_2": "llama3_json",
    "deepseek_v3": "deepseek_v3",
    "qwen1_5": "",
    "gemma3": "",
    "llama3_1": "",  # an early template, without tools
    "command_r_plus": "",
}
ENDS = ("<|im_end|>\n", "<|eot_id|>", "</s>", "<｜end▁of▁sentence｜>")
ONE_CALL = ("llama3_2",)  # what its template takes
NO_TEXT = ("llama3_2", "mistral_nemo", "deepseek_v3")  # beside calls
QUESTION = {"role": "user", "content": "What is the weather?"}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("weather", {"city": 'Lima "é" 😀 <b>', "days": 3, "units": {"t": ["C", None]}}),
    ("time", {}),
]
TOOLS = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": {}}}
    for name, _ in CALLS
]


@pytest.fixture(autouse=True)
def fetched(family: str) -> None:
    """A family of the npm registry is not there where npm is not."""
    if not (FOLDERS / family).is_dir():
        pytest.skip(f"{family} was not fetched: it takes npm")


@pytest.mark.parametrize("family", PARSERS)
def test_the_parser_is_chosen_by_the_chat_template(family: str) -> None:
    assert find_parser("", FOLDERS / family).names == PARSERS[family]


def answer(family: str, message: dict[str, Any]) -> tuple[str, str]:
    """The prompt, and how the model's template writes an answer to it."""
    template = read_config(FOLDERS / family).chat_template({"bos_token": "", "eos_token": "</s>"})
    assert template is not None
    prompt = template.render(Conversation([QUESTION], tools=TOOLS))
    whole = template.render(Conversation([QUESTION, message], False, tools=TOOLS))
    prompt = prompt if whole.startswith(prompt) else prompt.removesuffix("\n")
    assert whole.startswith(prompt)
    text = whole.removeprefix(prompt)
    return prompt, next((text.removesuffix(end) for end in ENDS if text.endswith(end)), text)


@pytest.mark.parametrize(
    "family", [family for family, names in PARSERS.items() if names and family != "deepseek_v3"]
)
def test_calls_that_a_template_writes_are_read_as_they_were(family: str) -> None:
    calls = CALLS[:1] if family in ONE_CALL else CALLS
    said = "" if family in NO_TEXT else "Let me see."
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said,
        "tool_calls": [
            {"id": f"call{number:05}", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(calls)
        ],
    }
    if "think" in PARSERS[family]:
        message["reasoning_content"] = "Hm.\n\nWell."
    prompt, text = answer(family, message)
    setup = Setup(prompt, tools=tuple(Tool(name) for name, _ in CALLS))
    events = parse(load(PARSERS[family]), text, setup)

    assert [each.name for each in events if isinstance(each, CallBegin)] == [n for n, _ in calls]
    arguments = [each.text for each in events if isinstance(each, CallArguments)]
    assert [json.loads(each) for each in arguments] == [given for _, given in calls]
    assert all(each in text for each in arguments)  # byte for byte
    assert "".join(each.text for each in events if isinstance(each, Text)) == said
    thoughts = "".join(each.text for each in events if isinstance(each, Reasoning))
    assert thoughts == message.get("reasoning_content", "")
