# SPDX-License-Identifier: Apache-2.0
"""From a model's text to what it says, thinks and calls, and back to what may be constrained.

A format is a file of the folder parsers/ with a function `load() -> Format`, loaded by its path
as a tokenizer_type is. `hermes.py` is the format `hermes`.
"""

from trellis.parsers.format import (
    CallArguments,
    CallBegin,
    CallEnd,
    Event,
    Format,
    Parser,
    Reasoning,
    Setup,
    Span,
    TellsReasoning,
    Text,
    Tool,
    ToolUse,
)
from trellis.parsers.joined import join_events

__all__ = [
    "CallArguments",
    "CallBegin",
    "CallEnd",
    "Event",
    "Format",
    "Parser",
    "Reasoning",
    "Setup",
    "Span",
    "TellsReasoning",
    "Text",
    "Tool",
    "ToolUse",
    "join_events",
]
