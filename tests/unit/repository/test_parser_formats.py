# SPDX-License-Identifier: Apache-2.0
"""PARSER=: by name, by path, by the chat template; and what of it a repository holds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.cli import run
from support.fake_engines import write_engine
from trellis.engine_files.engine_folder import read_engine
from trellis.parsers.registry import ParserError, known_formats
from trellis.pipeline.model_settings import ModelSettings, load_parser
from trellis.preflight.hooks import check_parser
from trellis.preflight.repository import read_repository
from trellis.repository.assemble import Plan, assemble
from trellis.repository.model_config import parameters, parse_config
from trellis.repository.named_file import NamedFileError
from trellis.repository.parser_formats import NO_PARSER, ParserFormats, find_parser

QWEN = '<tool_call>{"name": <function-name>, "arguments": <args-json-object>}</tool_call>'
MINE = """
from trellis.parsers import Format
from trellis.parsers.stepped import SteppedParser

def load():
    return Format(name="mine", parser=SteppedParser, calls=True)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A format of one's own in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return Path("mine.py")


def test_formats_are_found_by_name(tmp_path: Path) -> None:
    assert find_parser("hermes", tmp_path) == ParserFormats("hermes")
    assert find_parser("think+mistral", tmp_path) == ParserFormats("think+mistral")
    assert find_parser("none", tmp_path) == NO_PARSER


def test_a_file_of_ones_own_is_found_by_its_path_and_its_name(mine: Path, tmp_path: Path) -> None:
    assert find_parser("mine", tmp_path) == ParserFormats("mine", (mine,))
    assert find_parser("think+mine", tmp_path) == ParserFormats("think+mine", (mine,))
    path = tmp_path / "mine.py"
    assert find_parser(f"think+{path}", tmp_path) == ParserFormats("think+mine", (path,))


@pytest.mark.parametrize(
    ("parser", "said"),
    [
        ("hermse", "PARSER=hermse: no such format; did you mean hermes? Known: deepseek_v3, "),
        ("think+x", "PARSER=x: no such format, and no x.py in this folder. Known: "),
        ("x", ", two joined by +, none, and a file of your own: PARSER=path/to/mine.py"),
        ("no/mine.py", "PARSER=no/mine.py: no such file"),
        ("mine+think", "only a format of reasoning alone and one of calls alone can be joined"),
    ],
)
def test_what_is_no_format_is_rejected(mine: Path, parser: str, said: str) -> None:
    with pytest.raises((NamedFileError, ParserError)) as raised:
        find_parser(parser, mine.parent)

    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "names"),
    [
        ("tokenizer_config.json", json.dumps({"chat_template": QWEN}), "hermes"),
        (
            "tokenizer_config.json",
            json.dumps(
                {
                    "chat_template": [
                        {"name": "default", "template": "{{ messages }}"},
                        {"name": "tool_use", "template": QWEN},
                    ]
                }
            ),
            "hermes",
        ),
        ("chat_template.jinja", f"{QWEN}<think></think>", "think+hermes"),
        ("additional_chat_templates/tool_use.jinja", QWEN, "hermes"),
        ("chat_template.jinja", "{{ messages }}", ""),
        ("tokenizer_config.json", "{", ""),  # `make check` says so
        ("README.md", QWEN, ""),
    ],
)
def test_without_a_word_the_chat_templates_decide(
    tmp_path: Path, file: str, content: str, names: str
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    found = find_parser("", tmp_path)

    assert found == ParserFormats(names, chosen=True)
    assert str(found) == (f"{names}, by its chat template" if names else "none")


@pytest.fixture
def plan(tmp_path: Path, llama_folder: Path) -> Plan:
    engine = read_engine(write_engine(tmp_path / "llama-out", "0.9.0"))
    return Plan(engine, "llama", llama_folder)


def served(repository: Path) -> ModelSettings:
    """What `postprocessing` of a repository knows of itself."""
    folder = repository / "postprocessing"
    config = parse_config((folder / "config.pbtxt").read_text(), "postprocessing")
    return ModelSettings("postprocessing", folder / "1", parameters(config), {}, 1)


def test_a_repository_holds_the_formats_and_the_name(
    plan: Plan, mine: Path, tmp_path: Path
) -> None:
    target = tmp_path / "repo"
    assemble(replace(plan, parser=find_parser("think+mine", tmp_path)), target)
    settings = served(target)

    assert settings.text("parser") == "think+mine"
    carried = {path.stem for path in settings.parsers_folder.glob("*.py")}
    assert carried == {*known_formats(), "mine"}
    format = load_parser(settings)
    assert format is not None
    assert format.name == "think+mine"
    (check,) = check_parser(read_repository(target))
    assert (check.what, check.found, check.ok) == ("parser", "think+mine", True)


def test_a_format_that_cannot_be_loaded_fails_the_check(
    plan: Plan, mine: Path, tmp_path: Path
) -> None:
    target = tmp_path / "repo"
    assemble(replace(plan, parser=find_parser("mine", tmp_path)), target)
    (served(target).parsers_folder / "mine.py").write_text("import no_such_package")
    (check,) = check_parser(read_repository(target))

    assert not check.ok
    assert "mine.py: cannot be loaded: ModuleNotFoundError" in check.found
    assert check.remedy == "make the repository again with another PARSER=, or PARSER=none"


def test_a_repository_without_a_parser_has_none(plan: Plan, tmp_path: Path) -> None:
    target = tmp_path / "repo"
    assemble(plan, target)

    assert load_parser(served(target)) is None
    assert list(check_parser(read_repository(target))) == []


def test_the_command_says_what_it_chose(plan: Plan, tmp_path: Path) -> None:
    made = ("--engine", plan.engine.path, "--tokenizer", "llama", "--model_repo", tmp_path / "repo")

    def said(*more: str) -> str:
        return run("assemble", *made, "--tokenizer_dir", plan.tokenizer_dir, *more).output

    assert "; parser none)" in said()
    assert "; parser think+hermes)" in said("--parser", "think+hermes")
    assert served(tmp_path / "repo").text("parser") == "think+hermes"
    assert "assemble: PARSER=hermse: no such format; did you mean hermes?" in said(
        "--parser", "hermse"
    )
