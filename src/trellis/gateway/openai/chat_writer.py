# SPDX-License-Identifier: Apache-2.0
"""Writes `chat.completion` and its chunks."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trellis.gateway.openai.calls import Calls
from trellis.gateway.openai.choices import Choice, Piece, TokenLogProb, Usage, as_json
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.jobs import DONE, error_event, written
from trellis.gateway.refusals import quoted
from trellis.parsers import CallArguments, CallBegin, Event, Reasoning

if TYPE_CHECKING:
    from trellis.gateway.openai.chat_fields import ChatRequest
    from trellis.gateway.openai.generation import Generation

ROLE = b'"role":"assistant",'


class ChatWriter:
    """Writes one request's answer."""

    def __init__(self, name: str, asked: "ChatRequest", generation: "Generation") -> None:
        """`name`: the answer's id."""
        created = int(time.time())
        self._about = {"id": name, "created": created, "model": asked.model}
        options = asked.stream_options
        self._usage_at_end = bool(options and options.include_usage)
        self._usage_always = bool(options and options.continuous_usage_stats)
        self._log_probs = bool(asked.logprobs)
        self._reasoning = asked.include_reasoning is not False
        self._generation = generation
        about = written({**self._about, "object": "chat.completion.chunk"})
        self._head = b"data: " + about[:-1] + b',"choices":[{"index":%d,"delta":{%s'
        plain = b'},"logprobs":null,"finish_reason":null}]'
        self._tail = plain + (b',"usage":null}\n\n' if self._usage_at_end else b"}\n\n")
        self._heads: dict[int, bytes] = {}
        self._calls: dict[int, Calls] = {}

    def begin(self) -> bytes:
        """The role is in the first chunk that has something."""
        return b""

    def plain(self, choice: Choice, text: str) -> bytes:
        """A chunk of text."""
        head = self._heads.get(choice.index)
        if head is None or self._usage_always:
            return self.piece(choice, Piece(text))
        return head + b'"content":' + quoted(text) + self._tail

    def piece(self, choice: Choice, piece: Piece) -> bytes:
        """A chunk, if there is something in it."""
        more = self._more(choice, piece.events) if piece.events else b""
        if not (piece.text or more or piece.log_probs or piece.finish):
            return b""
        head = self._heads.get(choice.index)
        if head is None:
            head = self._head % (choice.index, ROLE)
            self._heads[choice.index] = self._head % (choice.index, b"")
        content = b'"content":' + quoted(piece.text)
        if not piece.text and (more or ROLE not in head):
            content = b'"content":null' if ROLE in head else b""
        delta = content + (b"," if content and more else b"") + more
        if not (piece.log_probs or piece.finish or self._usage_always):
            return head + delta + self._tail
        log_probs = written(_log_probs(choice, piece.log_probs)) if piece.log_probs else b"null"
        finish = written(piece.finish)
        usage = b""
        if self._usage_always:
            usage = b',"usage":' + written(self._generation.usage().as_json())
        elif self._usage_at_end:
            usage = b',"usage":null'
        end = b'},"logprobs":%b,"finish_reason":%b}]%b}\n\n' % (log_probs, finish, usage)
        return head + delta + end

    def _more(self, choice: Choice, events: Sequence[Event]) -> bytes:
        """The members of a delta beside its content; b"" for none."""
        members = []
        thoughts = self._thoughts(events)
        if thoughts:
            members.append(b'"reasoning_content":' + quoted(thoughts))
        calls = self._calls.setdefault(choice.index, Calls())
        deltas = _call_deltas(calls, events)
        if deltas:
            members.append(b'"tool_calls":' + written(deltas))
        return b",".join(members)

    def _thoughts(self, events: Sequence[Event]) -> str:
        if not self._reasoning:
            return ""
        return "".join(event.text for event in events if isinstance(event, Reasoning))

    def end(self, usage: Usage) -> bytes:
        """The usage if it is asked for, and the end."""
        if not self._usage_at_end:
            return DONE
        last = {
            **self._about,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage.as_json(),
        }
        return b"data: " + written(last) + b"\n\n" + DONE

    def error(self, error: OpenAIError) -> bytes:
        """The error alone."""
        return error_event(error)

    def whole(self, choices: Sequence[Choice], pieces: Sequence[Piece], usage: Usage) -> bytes:
        """A whole answer."""
        made = [
            {
                "index": choice.index,
                "message": self._message(piece),
                "logprobs": _log_probs(choice, piece.log_probs) if self._log_probs else None,
                "finish_reason": piece.finish,
            }
            for choice, piece in zip(choices, pieces, strict=True)
        ]
        about = {**self._about, "object": "chat.completion"}
        return written({**about, "choices": made, "usage": usage.as_json()})

    def _message(self, piece: Piece) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": piece.text, "refusal": None}
        if not piece.events:
            return message
        thoughts = self._thoughts(piece.events)
        if thoughts:
            message["reasoning_content"] = thoughts
        calls = Calls()
        for event in piece.events:
            calls.take(event)
        if calls.made:
            message["content"] = piece.text or None
            message["tool_calls"] = [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in calls.made
            ]
        return message


def _call_deltas(calls: Calls, events: Sequence[Event]) -> list[dict[str, Any]]:
    """What the calls of a chunk grow by, one object a call."""
    deltas: dict[int, dict[str, Any]] = {}
    for event in events:
        calls.take(event)
        if isinstance(event, CallBegin):
            deltas[event.number] = {
                "index": event.number,
                "id": calls.made[event.number].call_id,
                "type": "function",
                "function": {"name": event.name, "arguments": ""},
            }
        elif isinstance(event, CallArguments):
            grown = deltas.setdefault(
                event.number, {"index": event.number, "function": {"arguments": ""}}
            )
            grown["function"]["arguments"] += event.text
    return list(deltas.values())


def _log_probs(choice: Choice, found: Sequence[TokenLogProb]) -> dict[str, Any]:
    return {"content": [as_json(choice, each) for each in found], "refusal": None}
