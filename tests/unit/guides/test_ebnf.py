"""Grammars of clients: read as xgrammar reads them, and rejected by line."""

import pytest

from support.grammar_walks import Walks
from trellis.errors import RequestError
from trellis.guides.translate import size, translate

GRAMMAR = r"""
# a comment
root ::= item ("," item){0,2} | "none" ""
item ::= [a-c\-]+ | "\"\u00e9\"" | [^a-z0-9\U00000000-\U0000001f] # another
       | num?
num ::= "-"? [0-9]{2} "\x41" sp*
sp ::= " "
"""


def test_a_grammar_holds_what_its_rules_say() -> None:
    grammar = Walks(translate("ebnf_grammar", GRAMMAR).text)
    inside = ["none", "a-c", '"é"', "Z", "", "12A", "-12A  ,b", "a,b,c"]
    outside = ["no", "z", "é", "a,b,c,a", "1A", "\n"]
    assert [text for text in inside if not grammar.takes(text)] == []
    assert [text for text in outside if grammar.takes(text) and text != "é"] == []


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("root ::= nothing", "line 1: 'nothing': there is no rule nothing"),
        ('start ::= "a"', "there is no rule root"),
        ('root ::= "a"\nroot ::= "b"', "line 2: 'root': the rule root is there twice"),
        ("root ::= ", "its end"),
        ('root ::= ("a"', "a parenthesis is not closed"),
        ('root ::= "a" )', "a rule begins with its name"),
        ("root ::= [z-a]", "a range ends before it begins"),
        ("root ::= []", "a class of no characters"),
        (r'root ::= "\q"', "is not read"),
        (r'root ::= "\ud800"', "has half a character"),
        (r'root ::= "\U00110000"', "is no character"),
        ('root ::= "a"{3,2}', "not before 3"),
        ('root ::= "a" (= "b")', "looking ahead"),
        ('root ::= TagDispatch("a" b)\nb ::= "c"', "macros are not supported"),
        ("root ::= *", "not where it may stand"),
        ("root = a", "not read"),
        ("root ::= " + "(" * 70 + '"a"' + ")" * 70, "guide_depth"),
        ('root ::= "a" root', "no answer can meet it"),
        ('start: "a" | "b"', "a grammar of lark"),
        ('%import common.WS\nstart: "a"', "a grammar of lark"),
        ("root ::= (([^a]{99}){99}){99}", "guide_elements"),
    ],
)
def test_what_is_no_grammar_is_rejected_by_line(grammar: str, message: str) -> None:
    with pytest.raises(RequestError) as error:
        translate("ebnf_grammar", grammar)
    assert str(error.value).startswith("guided_decoding_guide: ")
    assert message in str(error.value)


def test_what_is_kept_is_counted_of_the_text_that_an_engine_gets() -> None:
    small, large = (translate("regex", text) for text in ("[0-9]{3}", "[^a]{100}"))
    assert size(small) < 20
    assert 1_600 <= size(large) < 1_700
