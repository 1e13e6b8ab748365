# SPDX-License-Identifier: Apache-2.0
"""What a small guide may cost: nothing grows with the square of it, and a rejection is kept."""

import json
from collections.abc import Set

import pytest

from trellis.errors import RequestError
from trellis.guides import grammar, translate
from trellis.guides.nodes import Node, Rule, Text, optional, rule_names, rules_that, sequence
from trellis.guides.ways import MOST_WORK, Work


@pytest.mark.parametrize("order", [1, -1])
def test_a_chain_of_rules_is_gone_through_once(order: int) -> None:
    chain: dict[str, Node] = {f"r{at}": Rule(f"r{at + 1}") for at in range(300)}
    chain["r300"] = optional(Text("a"))
    rules = dict(list(chain.items())[::order])
    looks = 0

    def is_empty(node: Node, found: Set[str]) -> bool:
        nonlocal looks
        looks += 1
        return node.name in found if isinstance(node, Rule) else True

    assert rules_that(rules, is_empty) == set(rules)
    assert looks <= 2 * len(rules)


def test_only_rules_that_come_to_be_one_are_found() -> None:
    rules: dict[str, Node] = {
        "a": sequence(Rule("b"), Rule("c")),
        "b": Text(""),
        "c": Rule("a"),  # of each other: neither is
        "d": Rule("b"),
    }

    def is_empty(node: Node, found: Set[str]) -> bool:
        return all(name in found for name in rule_names(node)) and node != Text("x")

    assert rules_that(rules, is_empty) == {"b", "d"}


def test_what_is_far_too_large_is_rejected_before_its_choices_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("told apart")

    monkeypatch.setattr(grammar, "determined", never)
    schema = {"enum": [f"a word that is number {number}" for number in range(2_000)]}
    with pytest.raises(RequestError, match="guide_elements is 10000"):
        translate.translate("json_schema", json.dumps(schema))


def test_a_rejection_is_kept_as_a_guide_is(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0
    read = translate.to_grammar

    def counted(kind: str, guide: str, place: str) -> str:
        nonlocal begun
        begun += 1
        return read(kind, guide, place)

    monkeypatch.setattr(translate, "to_grammar", counted)
    for text, wrong in (('{"type": "no such type"}', True), ('{"type": "null"}', False)):
        before = begun
        for _ in range(3):
            if wrong:
                with pytest.raises(RequestError, match="no such type"):
                    translate.translate("json_schema", text)
            else:
                translate.translate("json_schema", text)
        assert begun == before + 1


def test_the_grammars_of_a_tag_share_the_work_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a tag of many takes minutes."""
    made: list[Work] = []

    class Noted(Work):
        def __init__(self) -> None:
            self.left = 20_000
            made.append(self)

    monkeypatch.setattr(translate, "Work", Noted)
    grammars = [
        "root ::= " + " | ".join(f'[ab]* [a] [ab]{{{14 + k}}} "x{at}{k}"' for k in range(6))
        for at in range(20)
    ]
    elements = [{"type": "grammar", "grammar": each} for each in grammars]
    tag = {"type": "structural_tag", "format": {"type": "sequence", "elements": elements}}
    translate.translate("structural_tag", json.dumps(tag))
    (work,) = made
    assert -MOST_WORK <= work.left <= 0
