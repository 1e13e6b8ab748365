"""Every promise of the pages has a test that shows it, and every such test names a promise."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT

LINES = [
    [part.strip() for part in line.split(" | ")]
    for line in (ROOT / "tests" / "promises.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def marked(source: Path) -> Iterator[str]:
    """The promises that the tests of a file name."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise":
            yield ast.literal_eval(node.args[0])


def test_every_promise_is_shown_and_none_is_made_up() -> None:
    shown = {name for source in (ROOT / "tests").glob("*/**/test_*.py") for name in marked(source)}
    assert shown == {name for name, _, _ in LINES}


@pytest.mark.parametrize(("name", "words", "page"), LINES)
def test_a_promise_is_in_its_page(name: str, words: str, page: str) -> None:
    assert words in (ROOT / page).read_text(encoding="utf-8"), name


def test_every_promise_of_the_pages_is_listed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("## What is promised\n")
    items = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("- ")]
    page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    table = page.partition("| promised | command |")[2].partition("\n\n")[0].splitlines()[2:]
    known = [words for _, words, _ in LINES]
    assert items
    assert [item for item in items if not any(words in item for words in known)] == []
    rows = [row.split(" | ")[0].removeprefix("| ") for row in table]
    assert len(rows) > 5
    unknown = [row for row in rows if row not in known and row not in SAID_OTHERWISE]
    assert unknown == []


# Rows of the table that README says in other words, or that take minutes: promise -> why not here.
SAID_OTHERWISE = {
    "a text ends before its stop string, for every tokenizer_type; bad words never appear": (
        "stop words"
    ),
    "clients that disconnect free their place; no live stream is ever cancelled": "disconnects",
    "more than it can carry: right answers or a prompt 503": "overload",
    "texts right, nothing leaked under mixed traffic, with an API key and TLS"
    " (`trellis soak --no-keys`: without)": "`make soak`, minutes of load",
}
