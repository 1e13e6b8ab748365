# SPDX-License-Identifier: Apache-2.0
"""What the engine's process and its host say to each other: JSON arrays, one a message.

    host -> engine   [ADD, key, [ids], [sampling]]   [CANCEL, key]   [CLOSE]
    engine -> host   [READY, facts, figures]   [FAILED, message]
                     [EVENTS, [event, ...]]   [EVENTS, [event, ...], figures]

JSON writes named tuples as arrays by itself: an event whose second member is a text is a Failure;
of the others one of six members is a Progress, one of seven a Progress with Extras, one of three
the beginning of a Progress that says no more, as nearly all do.

Messages travel as `multiprocessing.connection.Connection` frames them.
"""

import json
from dataclasses import fields
from multiprocessing.connection import Connection
from typing import Any

from trellis.engine_host.engines.engine import Extras, Failure, Progress, Sampling

ADD, CANCEL, CLOSE = "add", "cancel", "close"
READY, FAILED, EVENTS = "ready", "failed", "events"

PLAIN_MEMBERS = 3
FULL_MEMBERS = 6  # of a Progress without extras
SAMPLING_FIELDS = tuple(field.name for field in fields(Sampling))

_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


def send(pipe: "Connection[Any, Any]", *message: Any) -> None:
    """Raises OSError if nobody is there any more."""
    pipe.send_bytes(_encode(message).encode())


def receive(pipe: "Connection[Any, Any]") -> list[Any]:
    """Wait for a message. Raises EOFError or OSError if nobody is there any more."""
    message: list[Any] = _decode(pipe.recv_bytes().decode())
    return message


def sampling_values(sampling: Sampling) -> list[Any]:
    """A Sampling as its fields' values, in their order."""
    return [getattr(sampling, name) for name in SAMPLING_FIELDS]


def read_sampling(values: list[Any]) -> Sampling:
    """A Sampling of such values; JSON has lists for its tuples."""
    members: Any = (tuple(value) if isinstance(value, list) else value for value in values)
    return Sampling(*members)


def event_values(event: Progress | Failure) -> Any:
    """An event without what goes without saying."""
    if isinstance(event, Failure) or event.extras is not None:
        return event
    return event[: FULL_MEMBERS if event.finish or event.log_probs else PLAIN_MEMBERS]


def read_event(values: list[Any]) -> Progress | Failure:
    """An event as the engine made it."""
    if isinstance(values[1], str):
        return Failure(*values)
    if len(values) == PLAIN_MEMBERS:
        return Progress(values[0], values[1], values[2], None, [], 0.0)
    if len(values) > FULL_MEMBERS:
        values[FULL_MEMBERS] = Extras(*values[FULL_MEMBERS])
    return Progress(*values)
