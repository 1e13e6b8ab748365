"""Regular expressions as grammars: of whole answers, and of what strings in JSON hold."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.grammar_walks import Walks
from trellis.errors import RequestError
from trellis.guides.translate import to_grammar, translate

SAME = {  # an expression: what matches, and what does not
    "[a-c]{2}": (["ab", "cc"], ["a", "abc", "ad"]),
    "^a|bc$": (["a", "bc"], ["", "abc"]),
    "x?y+z*": (["y", "xyyzz"], ["x", "xz"]),
    r"\d+\.\d{2}": (["1.25", "10.00"], ["1.2", "a.25"]),
    r"(?:é|\u00fc)+?": (["éü"], ["", "e"]),
    r"[^\W\d]\w*": (["a_1", "_x"], ["1a", "-"]),
    r"\S\s\S": (["a b", "é\té"], ["a\u00a0b ", "ab"]),
    r"a.b": (["axb", "a😀b"], ["a\nb", "ab"]),
    r'["\\\]\-]{1,3}': (['"', "\\]-"], ["a", ""]),
    "(a|b|){2}": (["", "a", "ab"], ["abc"]),
}


@pytest.mark.parametrize("expression", SAME)
def test_what_matches_as_a_whole_is_of_the_grammar(expression: str) -> None:
    grammar = Walks(translate("regex", expression).text)
    inside, outside = SAME[expression]
    assert [text for text in inside if not grammar.takes(text)] == []
    assert [text for text in outside if grammar.takes(text)] == []


@given(st.text('ab"\\é\n', max_size=6))
def test_a_pattern_is_found_in_what_a_string_says(text: str) -> None:
    grammar = Walks(to_grammar("json_schema", {"pattern": '^["a\\\\]|b\\n'}, "$"))
    found = re.search('^["a\\\\]|b\\n', text) is not None
    assert grammar.takes(json.dumps(text, ensure_ascii=False)) == found


REFUSED = {
    "(?=a)b": "looking",
    "(?<!a)b": "looking",
    r"(a)\1": "going back",
    r"a\bc": "stand at its begin",
    "a^b": "stand at its begin",
    "(?i)a": "flags",
    "a{,3}": "two meanings",
    r"\p{L}": "not a regular expression",
    "(": "not a regular expression",
    "(" * 80 + ")" * 80: "guide_depth",
    "(?>ab)": "leave it out",
    "[^\\s\\S]": "no answer can meet it",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_no_regular_language_is_rejected(expression: str) -> None:
    with pytest.raises(RequestError, match=re.escape(REFUSED[expression])):
        translate("regex", expression)
