"""A grammar's text stands for the same characters when a library writes it anew and reads that.

OpenVINO's xgrammar does: it writes the characters below as `\\xNN`, and takes all hex digits behind
an `\\x` for its own. The reader here is as careless.
"""

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.hypothesis_profiles import examples
from trellis.engine_host.engines.word_automaton import without
from trellis.engine_host.engines.words_grammar import words_grammar
from trellis.errors import RequestError
from trellis.guides.characters import ranges
from trellis.guides.grammar import class_text, is_misread, literal
from trellis.guides.translate import translate

SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r", '"': r"\"", "\\": r"\\", "-": r"\-", "]": r"\]"}
LETTERS = {short[1]: character for character, short in SHORT.items()}
ESCAPE = re.compile(r'\\(?:U([0-9a-f]{8})|(["\\]))|(.)', re.DOTALL)
CARELESS = re.compile(r"\\(?:x([0-9A-Fa-f]+)|(.))|(.)", re.DOTALL)
PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
MIXED = st.text(st.one_of(st.sampled_from('aF09 g"\\\n\x00\x1f\x7f\x80éüÿĀ안😀'), st.characters()))


def read(text: str) -> list[str]:
    """The characters of a literal or a class as they are written here."""
    return [
        chr(int(found[1], 16)) if found[1] else found[2] or found[3]
        for found in ESCAPE.finditer(text)
    ]


def anew(character: str) -> str:
    """A character as the library writes it."""
    if character in SHORT:
        return SHORT[character]
    if character < " " or "\x7f" <= character <= "\xff":
        return f"\\x{ord(character):x}"
    return character


def reread(text: str) -> list[str]:
    """What the library reads of its own text."""
    made = []
    for found in CARELESS.finditer("".join(map(anew, read(text)))):
        code = int(found[1], 16) if found[1] else 0
        made.append(chr(code) if found[1] else LETTERS.get(found[2] or "", found[3] or ""))
    return made


@settings(max_examples=examples(500))
@given(MIXED.filter(lambda text: not re.search("[\ud800-\udfff]", text)))
@example("début")
@example("\x1fa")
@example('"é"1')
def test_a_text_is_read_as_it_is(text: str) -> None:
    pieces = [found[1] for found in PIECE.finditer(literal(text))]
    assert "".join("".join(reread(piece)) for piece in pieces) == text
    assert (len(pieces) > 1) == is_misread(text)


@settings(max_examples=examples(500))
@given(st.lists(st.characters(max_codepoint=0x180, exclude_characters='"\\-]'), min_size=1))
@example(["\x01", "0", "a"])
@example(["é", "0"])
@example(["\x01", "\x02", "\x03", "a", "b"])
def test_a_class_is_read_as_it_is(characters: list[str]) -> None:
    made = class_text(ranges(*((ord(each), ord(each)) for each in characters)))
    ends = [found for found in read(made) if found != "-"]
    assert [each for each in reread(made) if each != "-"] == ends


def test_the_classes_of_bad_words_are_read_as_they_are() -> None:
    words = ["éa", "éb", "\x01b", "é1"]
    assert without(words)
    for line in words_grammar(words, ends=True).splitlines()[1:]:
        for found in re.finditer(r"\[([^\]]+)\]", line):
            made = found[1]
            assert reread(made) == read(made), line


def test_a_text_of_a_tag_is_split_or_refused_by_its_place() -> None:
    def tag(each: object) -> str:
        return json.dumps({"type": "structural_tag", "format": each})

    text = {"type": "const_string", "value": "début"}
    kind, made = translate("structural_tag", tag(text))
    assert json.loads(made)["format"] == {
        "type": "grammar",
        "grammar": 'root ::= "d\\U000000e9" "but"\n',
    }
    assert kind == "structural_tag"
    end = {"type": "tag", "begin": "<", "content": text, "end": "é1"}
    with pytest.raises(RequestError, match=r"\$\.format\.end: has a hex digit behind"):
        translate("structural_tag", tag(end))
    separated = {"type": "tags_with_separator", "separator": "é1", "tags": [end | {"end": ">"}]}
    with pytest.raises(RequestError, match=r"\$\.format\.separator: has a hex digit behind"):
        translate("structural_tag", tag(separated))
