# SPDX-License-Identifier: Apache-2.0
"""A client's guide as what the engines' libraries get: a grammar, or a structural tag of them.

>>> translate("regex", "[ab]c").text
'root ::= [a-b] "c"\\n'
"""

import json
from functools import lru_cache, partial
from typing import Any, NamedTuple

from trellis.errors import RequestError
from trellis.guides.ebnf import GrammarReader
from trellis.guides.expressions import Expression
from trellis.guides.grammar import Grammar
from trellis.guides.limits import GUIDE_BYTES, GUIDE_DEPTH, refused, refused_by
from trellis.guides.nodes import Node
from trellis.guides.schemas import SchemaReader, parse_json
from trellis.guides.tags import TagReader
from trellis.guides.ways import Work

KEPT = 256  # guides that were translated last
ANY_OBJECT = {"type": "object"}


class Guide(NamedTuple):
    """What an engine gets; `kind`: ebnf_grammar or structural_tag."""

    kind: str
    text: str


def translate(kind: str, guide: str) -> Guide:
    """A guide in the one form that every engine holds alike.

    `kind`: of pipeline/guided_decoding.py.
    Raises RequestError, with the place in the guide, for what is no such guide, for what cannot be
    held exactly, and at the limits of `limits.py`. Any thread; what was asked last is kept, errors
    too: a request of several sequences asks for each.
    """
    made = _translated(kind, guide)
    if isinstance(made, str):
        raise RequestError(made)
    return made


@lru_cache(KEPT)
def _translated(kind: str, guide: str) -> Guide | str:
    """The guide, or why it is rejected."""
    try:
        return _translate(kind, guide)
    except RequestError as error:
        return str(error)


def _translate(kind: str, guide: str) -> Guide:
    size = len(guide.encode("utf-8", "surrogatepass"))
    if size > GUIDE_BYTES:
        raise refused_by(f"{size} bytes, and guide_bytes is {GUIDE_BYTES}; send a smaller one")
    if kind == "structural_tag":
        return Guide(kind, TagReader(partial(to_grammar, work=Work())).read(_parsed(guide, "$")))
    return Guide("ebnf_grammar", to_grammar(kind, guide, "$"))


def size(guide: Guide) -> int:
    """The elements of a translated guide, by which what a library makes of it is in proportion."""
    if guide.kind != "structural_tag":
        grammar = Grammar()
        GrammarReader(guide.text).read(grammar, "")
        return grammar.elements()
    found, todo = len(guide.text), [json.loads(guide.text)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict) and value.get("type") == "grammar":
            found += size(Guide("ebnf_grammar", value["grammar"]))
        elif isinstance(value, (dict, list)):
            todo += value.values() if isinstance(value, dict) else value
    return found


def to_grammar(kind: str, guide: Any, place: str, work: Work | None = None) -> str:
    """The text of a grammar for a guide of any type but structural_tag. Raises RequestError.

    `guide`: its text; of a schema what its JSON says, too. `work`: that of the tag that it is in.
    """
    grammar = Grammar(work=work or Work())
    try:
        return grammar.write(_root(kind, guide, place, grammar))
    except RecursionError:
        raise refused(place, "too deep; make it flatter") from None


def _root(kind: str, guide: Any, place: str, grammar: Grammar) -> Node:
    if kind == "json":
        return SchemaReader(ANY_OBJECT, grammar).read()
    if kind == "json_schema":
        schema = _parsed(guide, place) if isinstance(guide, str) else guide
        _check_depth(schema)
        return SchemaReader(schema, grammar, place).read()
    if not isinstance(guide, str):
        raise refused(place, "send a text")
    if kind == "regex":
        return Expression(guide, place).whole()
    return GrammarReader(guide).read(grammar, "g-")


def _parsed(text: str, place: str) -> Any:
    value = parse_json(text, place)
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    """Raise RequestError for JSON of too many levels."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > GUIDE_DEPTH:
            raise refused_by(f"more than {GUIDE_DEPTH} levels (guide_depth); make it flatter")
        inside = [each for each in level if isinstance(each, (dict, list))]
        level = [
            value
            for each in inside
            for value in (each.values() if isinstance(each, dict) else each)
        ]
