# SPDX-License-Identifier: Apache-2.0
"""The step socket: how the gateway asks a Python engine, and hears what each step made.

A Unix stream socket in Linux's abstract namespace, named after the server's process and the model.
Messages are JSON arrays, each after its length in four bytes.

    model -> gateway   ["hello", {"protocol": 1, "version": "1", "no_guides": ""}]
    gateway -> model   ["ask", number, {tensor: values}]   ["leave", number]
    model -> gateway   ["events", [event, ...]]            one message a step, for all requests

An event is of one request:

    [number, ids]                        new token ids
    [number, ids, ended, cut, outputs]   the same; with the last of them, or with other outputs
    [number, message, code]              its end with an error; `code`: a name of Triton's

`cut`: how many characters a stop word takes at the text's end. `outputs`: by the tensor's name, a
number or a list of numbers or strings, as Triton's JSON has them.

Beside the tensors a body may have inputs of the socket's own (engine_host/step_inputs.py), which
have outputs of their own:

    top_log_probs      [[[id, log_prob], ...], ...]   of each new token, the likeliest first
    prompt_log_probs   [null, [log_prob, [[id, log_prob], ...]], ...]   with the first event
    cached_tokens      of the prompt, from the prefix cache, where the engine says it; with the last

The last event of an answer that is none of an error has one more, which no client sees:

    summary            [finish reason, cached tokens or null, seconds until the engine took it,
                        of a whole answer seconds since its first token]
"""

import json
import struct
from typing import Any

from trellis.errors import TrellisError
from trellis.ipc.sockets import model_address

PROTOCOL = 1
SUMMARY = "summary"
HELLO, ASK, LEAVE, EVENTS = "hello", "ask", "leave", "events"
MAX_BYTES = 64 << 20  # of a message; what the gateway lets in is far smaller

_LENGTH = struct.Struct(">I")
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class BadFrame(TrellisError, ValueError):
    """Bytes that are no message."""


def step_address(model: str, server_pid: int) -> bytes:
    """The address of a model's step socket, at the server of that process."""
    return model_address("steps", model, server_pid)


def frame(*message: Any) -> bytes:
    """A message as it is sent.

    >>> frame("leave", 7)
    b'\\x00\\x00\\x00\\x0b["leave",7]'
    """
    return framed(_encode(message).encode())


def framed(text: bytes) -> bytes:
    """A message that is JSON already."""
    return _LENGTH.pack(len(text)) + text


class Frames:
    """Messages out of pieces that end anywhere.

    >>> frames = Frames()
    >>> sent = frame("leave", 7) + frame("leave", 8)
    >>> frames.feed(sent[:20]), frames.feed(sent[20:])
    ([['leave', 7]], [['leave', 8]])
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[list[Any]]:
        """The messages that are complete with this piece. Raises BadFrame."""
        if self._rest:
            data = self._rest + data
        messages, at = [], 0
        while len(data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > MAX_BYTES:
                raise BadFrame(f"a message of {length} bytes")
            end = at + _LENGTH.size + length
            if end > len(data):
                break
            messages.append(_message(data[at + _LENGTH.size : end]))
            at = end
        self._rest = data[at:]
        return messages


def _message(text: bytes) -> list[Any]:
    try:
        message = _decode(text.decode())
    except ValueError as error:
        raise BadFrame(f"no JSON: {error}") from None
    if not isinstance(message, list) or not message:
        raise BadFrame("no array")
    return message
