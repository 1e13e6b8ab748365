# SPDX-License-Identifier: Apache-2.0
"""Formats by name, by path and by chat template."""

import re
from pathlib import Path

import pytest

from support.parsing import parse
from support.paths import ROOT
from trellis.parsers import CallArguments, CallBegin, CallEnd, Setup, Text, ToolUse
from trellis.parsers.registry import FORMATS, ORDER, ParserError, detect, known_formats, load

MINE = """
from trellis.parsers import Format
from trellis.parsers.stepped import SteppedParser

class Mine(SteppedParser):
    def read(self):
        yield from self.reader.rest(lambda text: self.text(text.upper()))

def load():
    return Format(name="mine", parser=Mine, calls=True, recognises=lambda source: "MINE" in source)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The file of a format of one's own, in a folder that holds the shipped ones, too."""
    for name in known_formats():
        (tmp_path / f"{name}.py").write_text((FORMATS / f"{name}.py").read_text())
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return file


@pytest.mark.parametrize("name", known_formats())
def test_every_format_is_named_as_its_file_and_says_what_it_tells(name: str) -> None:
    format = load(name)

    assert format.name == name
    assert format.reasoning or format.calls
    assert not format.calls or name in ORDER
    assert format.structure(ToolUse(()), "") is None
    parser = format.parser(Setup())
    assert [*parser.feed(""), *parser.end()] == []


def test_a_file_of_ones_own_is_loaded_by_its_path_and_by_its_name(mine: Path) -> None:
    for format in (load(str(mine)), load("mine", mine.parent)):
        assert format.parser(Setup()).feed("abc") == [Text("ABC")]
    assert load(f"think+{mine}").name == load("think+mine", mine.parent).name == "think+mine"


def test_two_formats_are_one_with_what_both_need_to_see() -> None:
    joined = load("think+hermes")

    assert joined.name == "think+hermes"
    assert joined.reasoning
    assert joined.calls
    assert joined.shown == load("think").shown | load("hermes").shown


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("hermse", "PARSER=hermse: no such format; did you mean hermes? known: "),
        ("think+hermse", "PARSER=hermse: no such format; did you mean hermes? known: "),
        ("hermes+think", "PARSER=hermes+think: only a format of reasoning alone and one of calls"),
        ("hermes+mistral", "only a format of reasoning alone"),
        ("think+hermes+mistral", "only a format of reasoning alone"),
        ("", "no such format"),
        ("no/such.py", "no/such.py: cannot be loaded: FileNotFoundError"),
    ],
)
def test_a_name_that_is_none_is_rejected_with_what_to_do(names: str, said: str) -> None:
    with pytest.raises(ParserError) as raised:
        load(names)

    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_package", "cannot be loaded: ModuleNotFoundError"),
        ("x = 1", "needs a function load() that returns a trellis.parsers.Format"),
        ("def load(): return 1", "needs a function load()"),
        ("def load(): raise KeyError('x')", "cannot be loaded: KeyError: 'x'"),
        (MINE.replace('name="mine"', 'name="other"'), "must be named 'mine', not 'other'"),
    ],
)
def test_a_file_that_is_no_format_is_rejected(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)

    with pytest.raises(ParserError) as raised:
        load(str(file))

    assert str(raised.value).startswith(f"{file}: ")
    assert said in str(raised.value)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}"
QWEN = '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
LLAMA = 'Respond in the format {"name": function name, "parameters": dictionary of argument name}'


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("", ""),
        (CHATML, ""),
        (f"{CHATML}{QWEN}", "hermes"),
        (f"{CHATML}{QWEN}<think>\n\n</think>\n\n", "think+hermes"),
        ("{{ '<think>' }}{{ content.split('</think>')[-1] }}", "think"),
        (f"<|start_header_id|>{LLAMA}", "llama3_json"),
        ("[TOOL_CALLS][AVAILABLE_TOOLS]", "mistral"),
        ("[THINK]{{ thought }}[/THINK][TOOL_CALLS]", "think+mistral"),
        ("Use exact format: [func_name1(param1=value1), func_name2(...)]", "llama4_pythonic"),
    ],
)
def test_a_chat_template_says_which_formats_its_model_uses(source: str, name: str) -> None:
    assert detect(source) == name


def test_a_file_of_ones_own_is_recognised_last(mine: Path) -> None:
    assert detect("MINE", mine.parent) == "mine"
    assert detect(f"MINE {QWEN}", mine.parent) == "hermes"


def test_the_docs_example_of_a_format_works_as_written(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "parsers.md").read_text()
    block = re.search(r"<!-- example: own format -->\s*```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    (tmp_path / "mine.py").write_text(block[1])

    events = parse(load(str(tmp_path / "mine.py")), 'Well. CALL f {"a": 1}. CALL ME. CALL g {"a"')

    assert events == [
        Text("Well. "),
        CallBegin(0, "f"),
        CallArguments(0, '{"a": 1}'),
        CallEnd(0),
        Text('. CALL ME. CALL g {"a"'),
    ]


def test_the_docs_name_every_format() -> None:
    page = (ROOT / "docs" / "parsers.md").read_text()

    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(known_formats())
    assert ", ".join(f"`{name}`" for name in ORDER) in page
