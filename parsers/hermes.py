# SPDX-License-Identifier: Apache-2.0
"""Calls of NousHermes, Qwen2.5, Qwen3 and SmolLM3: JSON objects between <tool_call> tags.

<tool_call>
{"name": "weather", "arguments": {"city": "Lima"}}
</tool_call>

The line ends beside the tags, and the one before <tool_call>, are the format's. A call whose
object is complete is a call even if the end of the answer cuts off </tool_call>.
"""

import json
from collections.abc import Mapping
from typing import Any

from trellis.parsers import Format, ToolUse
from trellis.parsers.json_call import JsonCall
from trellis.parsers.markers import Markers
from trellis.parsers.reader import Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import call_tags, calls

OPEN, CLOSE = "<tool_call>", "</tool_call>"
BEGINNINGS = Markers(f"\n{OPEN}", OPEN)
KEY = "arguments"
INSTRUCTIONS = f"""To call a function, answer with its name and arguments as JSON, in this form:
{OPEN}
{{"name": "...", "{KEY}": {{...}}}}
{CLOSE}"""
OTHERS = ("<function=", "<arg_key>")  # what other formats have between the same tags


class HermesParser(SteppedParser):
    """See Parser."""

    def read(self) -> Steps[None]:
        """See SteppedParser.read."""
        while opening := (yield from self.reader.until(BEGINNINGS, self.text)):
            yield from self.attempt(self._call(len(opening)), len(opening))

    def _call(self, opening: int) -> Steps[None]:
        self.reader.take(opening)
        yield from self.reader.space()
        yield from JsonCall(self, KEY).read()
        yield from self.reader.space()
        yield from self.reader.close_with(CLOSE)
        self.end_call()


def structure(use: ToolUse, prompt: str) -> Mapping[str, Any] | None:
    """See Format.structure."""
    if not use.tools:
        return None
    tags = call_tags(use, lambda name: f'{OPEN}\n{{"name": {name}, "{KEY}": ', end=f"}}\n{CLOSE}")
    return calls(use, OPEN, tags, separator="\n")


def written(name: str, arguments: str) -> str:
    """See Format.written."""
    return f'{OPEN}\n{{"name": {json.dumps(name)}, "{KEY}": {arguments}}}\n{CLOSE}'


def recognises(source: str) -> bool:
    """See Format.recognises."""
    mentioned = OPEN in source and CLOSE in source and KEY in source
    return mentioned and not any(other in source for other in OTHERS)


def load() -> Format:
    """The format."""
    return Format(
        name="hermes",
        parser=HermesParser,
        shown=frozenset({OPEN, CLOSE}),
        calls=True,
        structure=structure,
        instructions=INSTRUCTIONS,
        written=written,
        recognises=recognises,
    )
