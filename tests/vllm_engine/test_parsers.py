# SPDX-License-Identifier: Apache-2.0
"""Our parsers beside vLLM's own, and our structures in vLLM's grammar library."""

import json
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.parser_calls import OPENAI_TOOLS, SCHEMAS, TOOLS, Turn, random_turn
from support.parser_readings import Reading, read
from support.parser_writers import PROMPTS, WRITERS, held, written
from support.vllm_parsers import VllmParser, tokenizer
from trellis.guides.translate import translate
from trellis.parsers import Setup, Tool, ToolUse
from trellis.parsers.registry import load

TURNS = 8  # a format; benchmarks/parsers has 500, of the models' own templates
NAMES = {
    "hermes": "hermes",
    "llama3_json": "llama3_json",
    "llama4_pythonic": "llama4_pythonic",
    "mistral": "mistral",
    "qwen3_coder": "qwen3_coder",
    "glm": "glm47",
    "deepseek_v3": "deepseek_v3",
}
STREAMED = set(NAMES) - {"llama3_json", "deepseek_v3"}  # where vLLM's two ways are the same
CONSTRAINED = [
    form for form in WRITERS if load(form).structure(ToolUse(TOOLS), PROMPTS.get(form, ""))
]


def said(reading: Reading) -> tuple[str, list[tuple[str, Any]]]:
    return reading.text.strip(), [(call.name, json.loads(call.arguments)) for call in reading.calls]


@pytest.mark.parametrize("form", NAMES)
def test_vllms_own_parser_reads_the_same_calls(form: str, demo_engine: tuple[Path, Path]) -> None:
    tokens = tokenizer(demo_engine[1] / "tokenizer.json")
    source = random.Random(form)
    calls = 0
    for _ in range(TURNS):
        turn = written(form, random_turn(source))
        text = WRITERS[form](turn)
        ours = said(read(load(form), [text], Setup(tools=TOOLS)))

        def theirs() -> VllmParser:
            return VllmParser((NAMES[form], ""), tokens, OPENAI_TOOLS, "", False)

        assert said(theirs().whole(text)) == ours, text
        if form in STREAMED:
            ids = tokens.encode(text, add_special_tokens=False)
            assert said(theirs().streamed([[each] for each in ids])) == ours, text
        calls += len(ours[1])
    assert calls


@pytest.fixture(scope="module")
def compiler() -> Any:
    """Compiles grammars for a vocabulary of all bytes and an end."""
    xgrammar = pytest.importorskip("xgrammar")
    tokens = [bytes([byte]) for byte in range(256)] + [b"</s>"]
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(tokens, stop_token_ids=[256]))


def accepts(compiler: Any, structure: Mapping[str, Any], text: str) -> bool:
    """Whether a structural tag of this format lets a model say `text` and then end."""
    import xgrammar

    tag = translate("structural_tag", json.dumps({"type": "structural_tag", "format": structure}))
    matcher = xgrammar.GrammarMatcher(compiler.compile_structural_tag(tag.text))
    return all(matcher.accept_token(token) for token in [*text.encode(), 256])


def structure_of(form: str, tools: Sequence[Tool], **use: bool) -> Mapping[str, Any]:
    structure = load(form).structure(ToolUse(tools, **use), PROMPTS.get(form, ""))
    assert structure is not None
    return structure


@pytest.mark.parametrize("form", CONSTRAINED)
def test_a_structure_lets_through_what_is_written_of_the_tools(form: str, compiler: Any) -> None:
    source = random.Random(form)
    auto, required = (structure_of(form, TOOLS, required=each) for each in (False, True))
    for _ in range(TURNS):
        turn = written(form, random_turn(source))
        assert accepts(compiler, auto, WRITERS[form](turn)), turn
        alone = turn if form == "harmony" and turn.calls else turn._replace(text="")
        if form != "harmony" or turn.calls:
            assert accepts(compiler, required, held(form, alone)) == bool(turn.calls), turn


@pytest.mark.parametrize("form", CONSTRAINED)
def test_a_structure_lets_no_other_call_through(form: str, compiler: Any) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("get_weather", {"town": "Paris"}),
        ("get_weather", {"city": "Paris", "unit": "kelvin"}),
        ("get_wether", {"city": "Paris"}),
        ("set_alarm", {"hour": 7.5}),
        ("set_alarm", {}),
    ]
    for required in (False, True):
        write = partial(held, form) if required else WRITERS[form]
        calls = write(Turn("", "", [("get_weather", {"city": "Paris"})] * 2))
        structure = structure_of(form, TOOLS, required=required)
        for call in wrong:
            text = write(Turn("", "", [call]))
            assert not accepts(compiler, structure, text), text
        if form != "harmony":
            assert accepts(compiler, structure, calls)
            one = structure_of(form, TOOLS, required=required, parallel=False)
            assert not accepts(compiler, one, calls)
    named = structure_of(form, [Tool("get_weather", SCHEMAS["get_weather"])], required=True)
    assert accepts(compiler, named, held(form, Turn("", "", [("get_weather", {"city": "x"})])))
    assert not accepts(compiler, named, held(form, Turn("", "", [("get_time", {})])))
