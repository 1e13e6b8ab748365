# SPDX-License-Identifier: Apache-2.0
"""A client's grammar in EBNF as xgrammar reads it, read here: rules, texts, classes, repetitions.

It is written anew for the engines, so that all read the same, and none gets what some have alone:
looking ahead, macros.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from trellis.guides.characters import is_text, one_of, others, ranges
from trellis.guides.grammar import Grammar
from trellis.guides.limits import ENDLESS, GUIDE_DEPTH, GUIDE_TIMES, refused
from trellis.guides.nodes import Node, Ranges, Rule, Text, choice, many, sequence

ROOT = "root"
TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+|\#[^\n]*)
    |(?P<define>::=)
    |(?P<look>\(=)
    |(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*")
    |(?P<chars>\[(?:[^\]\\\n]|\\.)*\])
    |(?P<times>\{[ ]*[0-9]{1,9}[ ]*(?:,[ ]*(?:[0-9]{1,40})?[ ]*)?\})
    |(?P<mark>[|()*+?])""",
    re.VERBOSE,
)
ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,8})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
LETTERS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", "a": "\a", "v": "\v"}
LETTERS |= {"0": "\0", "e": "\x1b"}
LARK = re.compile(r"^\s*(?:%\w+|[?!]?\w+(?:\.\d+)?\s*:(?!:))", re.MULTILINE)


class Token(NamedTuple):
    """A piece of the text; `kind`: of TOKEN."""

    kind: str
    text: str
    at: int


@dataclass(slots=True)
class GrammarReader:
    """Reads one grammar."""

    text: str
    tokens: list[Token] = field(default_factory=list)
    at: int = 0
    depth: int = 0

    def read(self, grammar: Grammar, prefix: str) -> Node:
        """Put the rules into `grammar`, their names after `prefix`; the root.

        Raises RequestError with the line of what is wrong.
        """
        if "::=" not in self.text and LARK.search(self.text):
            raise refused("line 1", "a grammar of lark is not read; write EBNF, name ::= ...")
        self.tokens = self._split()
        found: dict[str, Node] = {}
        while self.at < len(self.tokens):
            name = self._take("name", "a rule begins with its name")
            self._take("define", f"::= follows the rule's name {name.text}")
            if name.text in found:
                raise self._refused(f"the rule {name.text} is there twice", name)
            found[name.text] = self._choice(prefix)
        if ROOT not in found:
            raise refused("line 1", f"there is no rule {ROOT}")
        for name_, node in found.items():
            grammar.rules[prefix + name_] = node
        for token in self.tokens:
            if token.kind == "name" and token.text not in found:
                raise self._refused(f"there is no rule {token.text[:60]}", token)
        return Rule(prefix + ROOT)

    def _split(self) -> list[Token]:
        made, at = [], 0
        while at < len(self.text):
            found = TOKEN.match(self.text, at)
            if found is None:
                raise self._refused("not read", Token("", self.text[at : at + 20], at))
            if found.lastgroup != "space":
                made.append(Token(found.lastgroup or "", found[0], at))
            at = found.end()
        return made

    def _choice(self, prefix: str) -> Node:
        parts = [self._sequence(prefix)]
        while self._is("|"):
            self.at += 1
            parts.append(self._sequence(prefix))
        return choice(*parts)

    def _sequence(self, prefix: str) -> Node:
        parts = []
        while self.at < len(self.tokens) and not self._is("|") and not self._is(")"):
            if self.tokens[self.at].kind == "name" and self._next_is("define"):
                break
            parts.append(self._repeated(self._element(prefix)))
        if not parts:
            raise self._refused('nothing is written ""', self._here())
        return sequence(*parts)

    def _element(self, prefix: str) -> Node:
        token = self._here()
        self.at += 1
        if token.kind == "text":
            return Text("".join(self._characters(token, token.text[1:-1])))
        if token.kind == "chars":
            return one_of(self._class(token))
        if token.kind == "name":
            if self._is("(") and self.tokens[self.at].at == token.at + len(token.text):
                raise self._refused(f"{token.text[:40]}(...): macros are not supported", token)
            return Rule(prefix + token.text)
        if token.text == "(":
            self.depth += 1
            if self.depth > GUIDE_DEPTH:
                raise self._refused(f"guide_depth is {GUIDE_DEPTH}", token)
            made = self._choice(prefix)
            if not self._is(")"):
                raise self._refused("a parenthesis is not closed", token)
            self.at += 1
            self.depth -= 1
            return made
        if token.kind == "look":
            raise self._refused("looking ahead (=...) is not supported", token)
        raise self._refused("not where it may stand", token)

    def _repeated(self, one: Node) -> Node:
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.text in "*+?" and token.kind == "mark":
                one = many(one, token.text == "+", 1 if token.text == "?" else None)
            elif token.kind == "times":
                low, comma, high = token.text[1:-1].replace(" ", "").partition(",")
                top = int(high) if high else None if comma else int(low)
                if high and int(high) >= ENDLESS:
                    top = None
                if max(int(low), top or 0) > GUIDE_TIMES or (top is not None and top < int(low)):
                    raise self._refused(f"at most {GUIDE_TIMES}, and not before {low}", token)
                one = many(one, int(low), top)
            else:
                break
            self.at += 1
        return one

    def _characters(self, token: Token, text: str) -> list[str]:
        """The characters of a text or class; an escaped one is two, a backslash first."""
        made, at = [], 0
        while at < len(text):
            found = ESCAPE.match(text, at)
            made.append(self._escaped(token, found) if found else text[at])
            at = found.end() if found else at + 1
        if not is_text("".join(made)):
            raise self._refused("has half a character", token)
        return made

    def _escaped(self, token: Token, found: "re.Match[str]") -> str:
        code = found[1] or found[2] or found[3]
        if code:
            if int(code, 16) > 0x10FFFF:
                raise self._refused(f"{found[0]} is no character", token)
            return chr(int(code, 16))
        letter = found[4]
        if letter.isalnum() and letter not in LETTERS:
            raise self._refused(f"\\{letter} is not read", token)
        return LETTERS.get(letter, letter)

    def _class(self, token: Token) -> Ranges:
        text = token.text[1:-1]
        negated = text.startswith("^")
        text = text[negated:]
        found = list(re.finditer(r"\\(?:x[0-9A-Fa-f]{1,8}|u.{4}|U.{8}|.)|.", text, re.DOTALL))
        pieces = [match[0] for match in found]
        codes = [ord(self._characters(token, piece)[0]) for piece in pieces]
        pairs, at = [], 0
        while at < len(codes):
            if at + 2 < len(codes) and pieces[at + 1] == "-":
                if codes[at + 2] < codes[at]:
                    raise self._refused("a range ends before it begins", token)
                pairs.append((codes[at], codes[at + 2]))
                at += 3
            else:
                pairs.append((codes[at], codes[at]))
                at += 1
        taken = others(ranges(*pairs)) if negated else ranges(*pairs)
        if not taken:
            raise self._refused("a class of no characters", token)
        return taken

    def _is(self, mark: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at].text == mark

    def _next_is(self, kind: str) -> bool:
        return self.at + 1 < len(self.tokens) and self.tokens[self.at + 1].kind == kind

    def _here(self) -> Token:
        if self.at < len(self.tokens):
            return self.tokens[self.at]
        return Token("", "its end", len(self.text))

    def _take(self, kind: str, hint: str) -> Token:
        token = self._here()
        if token.kind != kind:
            raise self._refused(hint, token)
        self.at += 1
        return token

    def _refused(self, why: str, token: Token) -> Exception:
        line = self.text.count("\n", 0, token.at) + 1
        return refused(f"line {line}", f"{token.text[:40]!r}: {why}")
