# SPDX-License-Identifier: Apache-2.0
"""Format objects of xgrammar's structural tags, of which a format's `structure` is made."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trellis.parsers.format import Tool, ToolUse

Structure = Mapping[str, Any]


def tag(begin: str, content: Structure, end: str) -> Structure:
    """`begin`, then `content`, then `end`."""
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def sequence(*elements: Structure) -> Structure:
    """One after the other."""
    return {"type": "sequence", "elements": list(elements)}


def one_of(*elements: Structure) -> Structure:
    """Any of them."""
    return {"type": "or", "elements": list(elements)}


def constant(text: str) -> Structure:
    """This text, or none."""
    # Of no text OpenVINO's release of xgrammar takes an expression alone.
    return {"type": "const_string", "value": text} if text else regex("()")


def regex(pattern: str) -> Structure:
    """A text that the whole of this regular expression matches."""
    return {"type": "regex", "pattern": pattern}


def any_text() -> Structure:
    """Any text, up to what follows it."""
    return {"type": "any_text"}


def arguments(tool: Tool) -> Structure:
    """A JSON object of the tool's schema."""
    return {"type": "json_schema", "json_schema": schema_of(tool)}


def schema_of(tool: Tool) -> Mapping[str, Any]:
    """The JSON schema of the tool's arguments, which are an object."""
    return {"type": "object", **tool.parameters}


def call_tags(use: ToolUse, begin: Callable[[str], str], end: str) -> list[Structure]:
    """A tag for each tool. `begin`: from the name as it stands in JSON, to all before arguments."""
    return [
        tag(begin(json.dumps(tool.name, ensure_ascii=False)), arguments(tool), end)
        for tool in use.tools
    ]


def calls(use: ToolUse, trigger: str, tags: Sequence[Structure], separator: str) -> Structure:
    """Text with calls in it, each of which begins with `trigger`; nothing but calls if required."""
    if use.required:
        return tags_between(tags, separator, one=not use.parallel)
    return text_with(tags, trigger, one=not use.parallel)


def tags_between(tags: Sequence[Structure], separator: str, *, one: bool) -> Structure:
    """At least one of `tags`, and `separator` between them. `one`: and no more."""
    return {
        "type": "tags_with_separator",
        "tags": list(tags),
        "separator": separator,
        "at_least_one": True,
        "stop_after_first": one,
    }


def text_with(tags: Sequence[Structure], trigger: str, *, one: bool) -> Structure:
    """Text with `tags` in it, each of which begins with `trigger`. `one`: one ends the text."""
    return {
        "type": "triggered_tags",
        "triggers": [trigger],
        "tags": list(tags),
        "at_least_one": False,
        "stop_after_first": one,
    }


def ending(structure: Structure) -> Structure:
    """The same structure of one call, of kinds that end by themselves.

    xgrammar takes a choice only if all or none of what is chosen from is of such kinds, and
    `tags_with_separator` is not, even where one tag ends it.
    """
    match structure["type"]:
        case "tags_with_separator" if structure["stop_after_first"]:
            tags = structure["tags"]
            return one_of(*tags) if len(tags) > 1 else dict(tags[0])
        case "sequence":
            *before, last = structure["elements"]
            return sequence(*before, ending(last))
        case "or":
            return one_of(*map(ending, structure["elements"]))
    return structure
