# SPDX-License-Identifier: Apache-2.0
"""The calls of one answer, as its events make them."""

import secrets
import string
from dataclasses import dataclass

from trellis.parsers import CallArguments, CallBegin, Event

# What every chat template takes back: that of Mistral wants nine letters and digits.
ID_LETTERS, ID_LENGTH = string.ascii_letters + string.digits, 9


@dataclass(slots=True)
class Call:
    """A call."""

    call_id: str
    name: str
    arguments: str = ""  # JSON, complete at the call's end


class Calls:
    """The calls of one answer."""

    def __init__(self) -> None:
        self.made: list[Call] = []

    def take(self, event: Event) -> None:
        """What an event makes of them."""
        if isinstance(event, CallBegin):
            self.made.append(Call(event.call_id or new_call_id(), event.name))
        elif isinstance(event, CallArguments):
            self.made[event.number].arguments += event.text


def new_call_id() -> str:
    """Unique in its conversation.

    >>> len(new_call_id())
    9
    """
    return "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))
