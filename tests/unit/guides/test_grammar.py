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
from trellis.guides.grammar import class_text, literal, split_misread
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
    assert len(pieces) == len(split_misread(text))
    assert "".join(split_misread(text)) == text


def members(text: str) -> set[str]:
    """The characters of a class, or of a text, as the library reads what it writes of it."""
    if text[0] == '"':
        return set(reread(text[1:-1]))
    inside = text[1:-1]
    assert anew(read(inside)[0]) != "^", "negated"
    codes = [ord(each) for each in reread(inside)]
    made, at = set(), 0
    while at < len(codes):
        is_range = codes[at + 1 : at + 2] == [ord("-")] and at + 2 < len(codes)
        last = codes[at + 2] if is_range else codes[at]
        made |= {chr(code) for code in range(codes[at], last + 1)}
        at += 3 if is_range else 1
    return made


LETTERS_OF_CLASSES = st.one_of(
    st.sampled_from("^]-\\\x00\x1f 09afAF_`é"), st.characters(max_codepoint=0x180)
)


@settings(max_examples=examples(2_000))
@given(st.sets(LETTERS_OF_CLASSES.filter(lambda each: each != "-"), min_size=1))
@example({"\x01", "0", "a"})
@example({"é", "0"})
@example({"\x01", "\x02", "\x03", "a", "b"})
@example({"^"})
@example({"\t", "^"})
@example({"^", "a"})
@example({"^", "_", "`", "a"})
@example({"^", "\t", "_", "`"})
def test_a_class_is_read_as_it_is(characters: set[str]) -> None:
    made = class_text(ranges(*((ord(each), ord(each)) for each in characters)))
    assert members(made) == characters


@pytest.mark.parametrize("words", [["éa", "éb", "\x01b", "é1"], ["]"], ["a]", "^a"], ["^"], ["]^"]])
def test_the_classes_of_bad_words_are_read_as_they_are(words: list[str]) -> None:
    assert without(words)
    found = re.findall(r"\[[^\]]+\]", words_grammar(words, ends=True))
    assert found
    for made in found:
        assert anew(read(made[1:-1])[0]) != "^", made
        assert reread(made[1:-1]) == read(made[1:-1]), made


def tag(each: object) -> str:
    return json.dumps({"type": "structural_tag", "format": each})


TEXT = {"type": "const_string", "value": "début"}
PIECES = [{"type": "const_string", "value": "dé"}, {"type": "const_string", "value": "but"}]


def test_a_text_of_a_tag_is_split_where_it_may_be() -> None:
    def made(each: object) -> object:
        kind, text = translate("structural_tag", tag(each))
        assert kind == "structural_tag"
        return json.loads(text)["format"]

    assert made(TEXT) == {"type": "sequence", "elements": PIECES}
    begins = {"type": "tag", "begin": "début", "content": {"type": "any_text"}, "end": ">"}
    rest = begins | {"begin": "but"}
    assert made(begins) == {"type": "sequence", "elements": [PIECES[0], rest]}


@pytest.mark.parametrize(
    ("place", "format_"),
    [
        ("end", {"type": "tag", "begin": "<", "content": TEXT, "end": "é1"}),
        ("separator", {"type": "tags_with_separator", "separator": "é1",
         "tags": [{"type": "tag", "begin": "<", "content": TEXT, "end": ">"}]}),
        ("tags\\[0\\].begin", {"type": "tags_with_separator", "separator": ",",
         "tags": [{"type": "tag", "begin": "é1", "content": TEXT, "end": ">"}]}),
    ],
)  # fmt: skip
def test_and_refused_by_its_place_elsewhere(place: str, format_: object) -> None:
    with pytest.raises(RequestError, match=rf"\$\.format\.{place}: has a hex digit behind"):
        translate("structural_tag", tag(format_))


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(RequestError, match=r"format\.value: send a text"):
        translate("structural_tag", tag({"type": "const_string", "value": "é1\ud800"}))
