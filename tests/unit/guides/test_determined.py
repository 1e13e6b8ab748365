"""A choice is written so that each character says the way on, and stands for the same texts."""

import itertools
import time
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.grammar_walks import Walks
from support.hypothesis_profiles import examples
from trellis.errors import RequestError
from trellis.guides.determined import MOST_STATES, determined
from trellis.guides.ebnf import GrammarReader
from trellis.guides.grammar import Grammar, written
from trellis.guides.nodes import (
    Chars,
    Choice,
    Many,
    Node,
    Rule,
    Sequence,
    Text,
    choice,
    many,
    sequence,
)
from trellis.guides.translate import to_grammar

LETTERS = "abc"
LONGEST = 4
Rules = Mapping[str, Node]

CLASSES = [(("a", "b"),), (("b", "c"),), (("a", "a"), ("c", "c")), (("a", "c"),)]
TEXTS = st.one_of(
    st.text(LETTERS, max_size=4).map(Text),
    st.sampled_from(CLASSES).map(
        lambda pairs: Chars(tuple((ord(low), ord(high)) for low, high in pairs))
    ),
)


def nodes(rules: str, endless: bool = True, leaves: int = 10) -> st.SearchStrategy[Node]:
    """`rules`: the names that may be in it; `endless`: whether repetitions may be.

    Those that end are few times, so that no choice reaches MOST_WORK.
    """
    lows, ends = (st.integers(0, 2), st.integers(0, 3) | st.none())
    if not endless:
        lows, ends = st.integers(0, 1), st.integers(0, 1)

    def inner(each: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        return st.one_of(
            st.lists(each, max_size=4).map(lambda parts: choice(*parts)),
            st.lists(each, max_size=3).map(lambda parts: sequence(*parts)),
            st.tuples(each, lows, ends).map(
                lambda made: many(made[0], made[1], None if made[2] is None else made[1] + made[2])
            ),
        )

    named = st.sampled_from([Rule(name) for name in rules]) if rules else st.nothing()
    return st.recursive(TEXTS | named, inner, max_leaves=leaves)


# Rules in a row, each of which may refer to those behind it, and rules that may refer to any.
IN_A_ROW = st.fixed_dictionaries(
    {name: nodes("pqr"[at + 1 :], endless=False, leaves=5) for at, name in enumerate("pqr")}
)
ANY_RULES = st.fixed_dictionaries({name: nodes("pqr", leaves=6) for name in "pqr"})


def texts(node: Node, rules: Rules) -> frozenset[str]:
    """All of LONGEST characters at most."""
    return _texts(node, said(rules))


def said(rules: Rules) -> Mapping[str, frozenset[str]]:
    """The texts of each rule."""
    known: dict[str, frozenset[str]] = dict.fromkeys(rules, frozenset())
    while True:
        found = {name: _texts(each, known) for name, each in rules.items()}
        if found == known:
            return known
        known = found


def _texts(node: Node, known: Mapping[str, frozenset[str]]) -> frozenset[str]:
    match node:
        case Text(text):
            return frozenset([text] if len(text) <= LONGEST else [])
        case Chars(ranges):
            return frozenset(chr(each) for a, b in ranges for each in range(a, b + 1))
        case Rule(name):
            return known[name]
        case Sequence(parts):
            return _joined([_texts(part, known) for part in parts])
        case Choice(parts):
            return frozenset().union(*(_texts(part, known) for part in parts))
    assert isinstance(node, Many)
    part, found = _texts(node.part, known), frozenset[str]()
    most = LONGEST + node.low if node.high is None else node.high
    now = frozenset([""])
    for times in range(most + 1):
        found |= now if times >= node.low else frozenset()
        now = _joined([now, part])
    return found


def _joined(parts: list[frozenset[str]]) -> frozenset[str]:
    made = frozenset([""])
    for part in parts:
        made = frozenset(
            one + other
            for one, other in itertools.product(made, part)
            if len(one) + len(other) <= LONGEST
        )
    return made


def assert_one_way_on(root: Node, rules: Rules) -> None:
    known = said(rules)
    todo = [root, *rules.values()]
    while todo:
        node = todo.pop()
        match node:
            case Choice(parts):
                firsts = [first for part in parts for first in _firsts(part, known)]
                assert len(firsts) == len(set(firsts)), written(node)
                todo += parts
            case Sequence(parts):
                todo += parts
            case Many(part):
                todo.append(part)


def _firsts(node: Node, known: Mapping[str, frozenset[str]]) -> set[str]:
    return {text[0] for text in _texts(node, known) if text}


@settings(max_examples=examples(2_000))
@given(nodes("pqr"), ANY_RULES)
@example(choice(many(Text("aa"), 2, 2), many(Chars(((ord("a"), ord("b")),)))), {})
@example(choice(Rule("p"), Rule("q")), {"p": sequence(Rule("p"), Text("a")), "q": Text("a")})
def test_it_stands_for_the_same_texts(node: Node, rules: Rules) -> None:
    assert texts(*determined(node, rules)) == texts(node, rules)


@settings(max_examples=examples(1_000))
@given(nodes("pqr", endless=False, leaves=6), IN_A_ROW)
def test_rules_that_do_not_refer_to_themselves_are_looked_into(node: Node, rules: Rules) -> None:
    root, made = determined(node, rules)
    assert texts(root, made) == texts(node, rules)
    assert_one_way_on(root, made)


@settings(max_examples=examples(500))
@given(nodes("pqr", endless=False, leaves=6), IN_A_ROW)
def test_a_clients_grammar_is_written_with_one_way_on(node: Node, rules: Rules) -> None:
    lines = [f"{name} ::= {written(each)}" for name, each in rules.items() if _writable(each)]
    if len(lines) < len(rules) or not _writable(node):
        return
    try:
        text = to_grammar("ebnf_grammar", "\n".join([f"root ::= {written(node)}", *lines]), "$")
    except RequestError:  # there is no text of it
        assert not texts(node, rules)
        return
    made = Grammar()
    root = GrammarReader(text).read(made, "")
    assert texts(root, made.rules) == texts(node, rules)
    assert_one_way_on(root, made.rules)


def _writable(node: Node) -> bool:
    """Whether there is no choice of nothing in it, which EBNF has no form for."""
    match node:
        case Choice(parts) | Sequence(parts):
            return bool(parts) and all(map(_writable, parts))
        case Many(part):
            return _writable(part)
    return True


@given(st.lists(st.text(LETTERS, max_size=LONGEST), min_size=1, max_size=30, unique=True))
def test_words_are_told_apart_by_each_character(words: list[str]) -> None:
    alone = determined(choice(*map(Text, words)), {})
    rules: Rules = {f"w{at}": Text(word) for at, word in enumerate(words)}
    as_rules = determined(choice(*map(Rule, rules)), rules)
    for made in (alone, as_rules):
        assert texts(*made) == set(words)
        assert_one_way_on(*made)


RECURSIVE = {  # how it is written, and how it is written anew
    'root ::= a | b\na ::= "x" a | "y"\nb ::= "x" b | "z"': '"x"* [y-z]',
    'root ::= t "+" root | t "-" root | t\nt ::= "1"+ | "(" root ")"': (
        'g-t ("+" g-root | "-" g-root)?'
    ),
    'root ::= "[" root "]" | "[]"': '"[" (g-root "]" | "]")',
    'root ::= a | b\na ::= "k" root | "ka"\nb ::= "kb"': '"k" (g-root | "a" | "b")',
    # Which of the two it is shows only behind all of the brackets.
    'root ::= a | b\na ::= "(" a ")" | "x"\nb ::= "(" b "]" | "x"': "g-a | g-b",
    'root ::= a | "yz"\na ::= a "x" | "y"': 'g-a | "yz"',  # it begins with itself
}


@pytest.mark.parametrize("grammar", RECURSIVE)
def test_recursive_rules_are_told_apart_where_that_has_an_end(grammar: str) -> None:
    text = to_grammar("ebnf_grammar", grammar, "$")
    assert f"g-root ::= {RECURSIVE[grammar]}\n" in text


def test_constants_of_alternatives_are_told_apart_and_objects_stay_rules() -> None:
    words = [f"n-{end}" for end in ("east", "est", "eastern")]
    text = to_grammar("json_schema", {"anyOf": [{"const": word} for word in words]}, "$")
    assert r'r0 ::= "\"n-e" ("ast" ("\"" | "ern\"") | "st\"")' in text
    optional = {"properties": {f"p{number}": {"const": 1} for number in range(80)}}
    assert len(to_grammar("json_schema", optional, "$")) < 10_000


def test_rules_that_begin_alike_for_long_are_told_apart() -> None:
    lines = [f'{a}{at} ::= "x" {a}{at + 1} | "{a}"' for a in "pq" for at in range(300)]
    grammar = "\n".join(["root ::= p0 | q0", *lines, 'p300 ::= "y"', 'q300 ::= "z"'])
    made = Walks(to_grammar("ebnf_grammar", grammar, "$"))
    for text in ("p", "q", "xp", "x" * 50 + "q"):
        assert made.takes(text)
    assert not made.takes("x" * 50 + "r")


def test_what_would_have_too_many_states_stays_as_it_is() -> None:
    any_letter = Chars(((ord("a"), ord("c")),))
    one = sequence(many(any_letter), Text("a"), many(any_letter, 40, 40))
    other = sequence(many(any_letter), Text("b"), many(any_letter, 40, 40))
    assert determined(choice(one, other), {})[0] == Choice((one, other))
    assert MOST_STATES < 2**40


HARD = {
    "states": "|".join(f"[a-c]*{letter}[a-c]{{40}}" for letter in "abc"),
    "shared": "(?:a|bb){0,40}c|(?:a|bb){0,40}d",
    "many": "".join(f"(?:[a-c]*a[a-c]{{{each}}}|[a-c]*b[a-c]{{{each}}})" for each in range(20, 60)),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_choices_take_a_bounded_time(name: str) -> None:
    begun = time.monotonic()
    to_grammar("regex", HARD[name], "$")
    assert time.monotonic() - begun < 15
