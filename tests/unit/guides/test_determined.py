# SPDX-License-Identifier: Apache-2.0
"""A choice is written so that each character says the way on, and stands for the same texts."""

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.hypothesis_profiles import examples
from trellis.guides.determined import MOST_STATES, determined
from trellis.guides.grammar import written
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

LETTERS = "abc"
LONGEST = 6
RULE = Text("cab")  # what the rule `r` says

LEAVES = st.one_of(
    st.text(LETTERS, max_size=4).map(Text),
    st.sampled_from([(("a", "b"),), (("b", "c"),), (("a", "a"), ("c", "c")), (("a", "c"),)]).map(
        lambda pairs: Chars(tuple((ord(low), ord(high)) for low, high in pairs))
    ),
    st.just(Rule("r")),
)


def _inner(nodes: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.one_of(
        st.lists(nodes, max_size=4).map(lambda parts: choice(*parts)),
        st.lists(nodes, max_size=3).map(lambda parts: sequence(*parts)),
        st.tuples(nodes, st.integers(0, 2), st.integers(0, 3) | st.none()).map(
            lambda made: many(made[0], made[1], None if made[2] is None else made[1] + made[2])
        ),
    )


NODES = st.recursive(LEAVES, _inner, max_leaves=14)


def texts(node: Node) -> frozenset[str]:
    """All of LONGEST characters at most."""
    match node:
        case Text(text):
            return frozenset([text] if len(text) <= LONGEST else [])
        case Chars(ranges):
            return frozenset(chr(each) for a, b in ranges for each in range(a, b + 1))
        case Rule():
            return texts(RULE)
        case Sequence(parts):
            return _joined([texts(part) for part in parts])
        case Choice(parts):
            return frozenset().union(*map(texts, parts))
    assert isinstance(node, Many)
    part, found = texts(node.part), frozenset[str]()
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


@settings(max_examples=examples(2_000))
@given(NODES)
@example(choice(many(Text("aa"), 2, 2), many(Chars(((ord("a"), ord("b")),)))))
def test_it_stands_for_the_same_texts(node: Node) -> None:
    assert texts(determined(node)) == texts(node)


@given(st.lists(st.text(LETTERS, max_size=5), min_size=1, max_size=30, unique=True))
def test_words_are_told_apart_by_each_character(words: list[str]) -> None:
    made = determined(choice(*map(Text, words)))
    assert texts(made) == set(words)
    _assert_one_way_on(made)


def _assert_one_way_on(node: Node) -> None:
    match node:
        case Choice(parts):
            firsts = [text[:1] for part in parts for text in {one[:1] for one in texts(part)}]
            assert len(firsts) == len(set(firsts)), written(node)
            for part in parts:
                _assert_one_way_on(part)
        case Sequence(parts):
            for part in parts:
                _assert_one_way_on(part)
        case Many(part, _, _):
            _assert_one_way_on(part)


def test_what_would_have_too_many_states_stays_as_it_is() -> None:
    any_letter = Chars(((ord("a"), ord("c")),))
    one = sequence(many(any_letter), Text("a"), many(any_letter, 40, 40))
    other = sequence(many(any_letter), Text("b"), many(any_letter, 40, 40))
    assert determined(choice(one, other)) == Choice((one, other))
    assert MOST_STATES < 2**40
