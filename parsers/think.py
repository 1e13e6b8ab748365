# SPDX-License-Identifier: Apache-2.0
"""Thoughts in front of an answer: <think>...</think> of Qwen3, DeepSeek R1 and SmolLM3, and
[THINK]...[/THINK] of Magistral.

The line ends that chat templates write are the format's: one beside each tag inside of the
thoughts, and up to two behind them. The prompt may have begun the thoughts.
"""

from collections.abc import Mapping
from typing import Any

from trellis.parsers import Format
from trellis.parsers.markers import Markers
from trellis.parsers.reader import Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import any_text, constant, one_of, regex, sequence, tag

PAIRS = {"<think>": "</think>", "[THINK]": "[/THINK]"}
LINES_BEHIND = 2


class ThinkParser(SteppedParser):
    """See Parser."""

    def read(self) -> Steps[None]:
        """See SteppedParser.read."""
        opening = begun_by(self.setup.prompt)
        if not opening:
            opening = yield from self._opening()
        elif not self.setup.prompt.endswith("\n"):
            yield from self.reader.follows("\n")
        if opening:
            yield from self._thoughts(PAIRS[opening])

    def _opening(self) -> Steps[str]:
        """Skip what begins the thoughts, and white space before it; "" if nothing does."""
        self.reader.mark()
        yield from self.reader.space()
        opening = yield from self.reader.first_of(*PAIRS)
        if opening:
            self.reader.unmark()
            yield from self.reader.follows("\n")
        else:
            self.reader.rewind()
        return opening

    def _thoughts(self, closing: str) -> Steps[None]:
        end = yield from self.reader.until(Markers(f"\n{closing}", closing), self.reasoning)
        self.reader.take(len(end))
        for _ in range(LINES_BEHIND):
            yield from self.reader.follows("\n")


def begun_by(prompt: str) -> str:
    """What began the thoughts at the end of a prompt; "" if they are not begun."""
    return next((opening for opening in PAIRS if prompt.rstrip().endswith(opening)), "")


def thoughts(prompt: str) -> Mapping[str, Any] | None:
    """See Format.thoughts."""
    begun = begun_by(prompt)
    after = regex(rf"\n{{0,{LINES_BEHIND}}}")
    if begun:
        return sequence(tag("", any_text(), PAIRS[begun]), after)
    if prompt.rstrip().endswith(tuple(PAIRS.values())):
        return None
    whole = [sequence(tag(begin, any_text(), end), after) for begin, end in PAIRS.items()]
    return one_of(*whole, constant(""))


def recognises(source: str) -> bool:
    """See Format.recognises."""
    return any(closing in source for closing in PAIRS.values())


def load() -> Format:
    """The format."""
    return Format(
        name="think",
        parser=ThinkParser,
        shown=frozenset({*PAIRS, *PAIRS.values()}),
        reasoning=True,
        thoughts=thoughts,
        recognises=recognises,
    )
