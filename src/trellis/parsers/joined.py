# SPDX-License-Identifier: Apache-2.0
"""Events with pieces of a text that follow each other made one: what does not depend on pieces."""

from collections.abc import Iterable
from itertools import groupby

from trellis.parsers.format import CallArguments, Event, Reasoning, Text


def join_events(events: Iterable[Event]) -> list[Event]:
    """The same events; two of the same kind, and of the same call, that follow each other are one.

    >>> join_events([Text("a"), Text("b")])
    [Text(text='ab')]
    """
    joined: list[Event] = []
    for (kind, number), group in groupby(events, _kind):
        if kind is CallArguments:
            joined.append(CallArguments(number, "".join(_text(each) for each in group)))
        elif kind is Text:
            joined.append(Text("".join(_text(each) for each in group)))
        elif kind is Reasoning:
            joined.append(Reasoning("".join(_text(each) for each in group)))
        else:
            joined += group
    return joined


def _kind(event: Event) -> tuple[type, int]:
    return type(event), 0 if isinstance(event, (Text, Reasoning)) else event.number


def _text(event: Event) -> str:
    return event.text if isinstance(event, (Text, Reasoning, CallArguments)) else ""
