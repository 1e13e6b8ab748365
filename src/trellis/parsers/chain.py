# SPDX-License-Identifier: Apache-2.0
"""A format of reasoning in front of a format of calls: what is no thought goes to the second."""

from collections.abc import Mapping
from typing import Any

from trellis.parsers.format import (
    Event,
    Format,
    Parser,
    Setup,
    Span,
    TellsReasoning,
    Text,
    ToolUse,
)
from trellis.parsers.structure import sequence


class ChainedParser:
    """A Parser that gives the text of one parser to the next."""

    def __init__(self, first: Parser, second: Parser) -> None:
        self._first = first
        self._second = second

    def feed(self, text: str) -> list[Event]:
        """See Parser.feed."""
        return self._pass_on(self._first.feed(text))

    def end(self) -> list[Event]:
        """See Parser.end."""
        return [*self._pass_on(self._first.end()), *self._second.end()]

    def take_reasoned(self) -> tuple[list[Span], int]:
        """See TellsReasoning."""
        return self._first.take_reasoned() if isinstance(self._first, TellsReasoning) else ([], 0)

    def _pass_on(self, events: list[Event]) -> list[Event]:
        given: list[Event] = []
        for event in events:
            given += self._second.feed(event.text) if isinstance(event, Text) else [event]
        return given


def chain(reasoning: Format, calls: Format) -> Format:
    """The format `reasoning+calls`."""

    def parser(setup: Setup) -> Parser:
        return ChainedParser(reasoning.parser(setup), calls.parser(setup))

    def structure(use: ToolUse, prompt: str) -> Mapping[str, Any] | None:
        called = calls.structure(use, prompt)
        thought = reasoning.thoughts(prompt)
        return called if called is None or thought is None else sequence(thought, called)

    return Format(
        name=f"{reasoning.name}+{calls.name}",
        parser=parser,
        shown=reasoning.shown | calls.shown,
        reasoning=True,
        calls=True,
        structure=structure,
        thoughts=reasoning.thoughts,
        instructions=calls.instructions,
        written=calls.written,
        recognises=lambda source: reasoning.recognises(source) and calls.recognises(source),
    )
