# SPDX-License-Identifier: Apache-2.0
"""The step socket: how the gateway asks a Python engine, and hears what each step made.

A Unix stream socket in Linux's abstract namespace, named after the server's process and the model.
Messages are JSON arrays, each after its length in four bytes.

    model -> gateway   ["hello", {"protocol": 1, "version": "1", "no_guides": ""}]
    gateway -> model   ["ask", number, {tensor: values}]   ["leave", number]
    model -> gateway   ["events", [event, ...]]            one message a step, for all requests;
                                                           several where the step made much

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
EVENTS_BYTES = 1 << 20  # of a message of several events: others are served between two
FEW_TOKENS = 1024  # of a step, whose events are one message as a rule

_LENGTH = struct.Struct(">I")
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode
_OF_EVENTS = b'["events",[%b]]'


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


def event_frames(events: list[list[Any]]) -> tuple[list[bytes], list[int]]:
    """A step's events as few messages, and which requests end here, by their numbers.

    An event that is larger than a message may be gives way to an error, its request's end.

    >>> event_frames([[7, [1, 2]], [8, [3]]])
    ([b'\\x00\\x00\\x00\\x1e["events",[[7,[1,2]],[8,[3]]]]'], [])
    """
    if sum([len(event[1]) for event in events]) <= FEW_TOKENS:
        whole = frame(EVENTS, events)
        if len(whole) <= EVENTS_BYTES:
            return [whole], []
    groups: list[list[bytes]] = [[]]
    size, ended = 0, []
    for event in events:
        text = _encode(event).encode()
        if len(text) > MAX_BYTES - len(_OF_EVENTS):
            ended.append(event[0])
            text = _encode(_too_large(event[0], len(text))).encode()
        if groups[-1] and size + len(text) > EVENTS_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(text)
        size += len(text) + 1
    return [framed(_OF_EVENTS % b",".join(group)) for group in groups], ended


def _too_large(number: int, size: int) -> list[Any]:
    what = f"an answer of {size} bytes, and {MAX_BYTES} pass from the engine at once"
    remedy = "ask for fewer tokens or fewer log probabilities (top_logprobs), or for a stream"
    return [number, f"max_tokens: {what}; {remedy}", "INVALID_ARG"]


class Frames:
    """Messages out of pieces that end anywhere.

    >>> frames = Frames()
    >>> sent = frame("leave", 7) + frame("leave", 8)
    >>> frames.feed(sent[:20]), frames.feed(sent[20:])
    ([['leave', 7]], [['leave', 8]])
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a message that is not complete
        self._size = 0  # bytes of them
        self._wanted = 0  # bytes before there is anything to do

    def feed(self, data: bytes) -> list[list[Any]]:
        """The messages that are complete with this piece. Raises BadFrame."""
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            if self._size < self._wanted:
                return []
            data = b"".join(self._pieces)
            self._pieces = []
        messages, at, wanted = [], 0, _LENGTH.size
        while len(data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > MAX_BYTES:
                raise BadFrame(f"a message of {length} bytes")
            end = at + _LENGTH.size + length
            if end > len(data):
                wanted = end - at
                break
            messages.append(_message(data[at + _LENGTH.size : end]))
            at = end
        if at < len(data):
            self._pieces = [data[at:]]
            self._size, self._wanted = len(data) - at, wanted
        return messages


def _message(text: bytes) -> list[Any]:
    try:
        message = _decode(text.decode())
    except ValueError as error:
        raise BadFrame(f"no JSON: {error}") from None
    if not isinstance(message, list) or not message:
        raise BadFrame("no array")
    return message
