# SPDX-License-Identifier: Apache-2.0
"""Writes a `response`, whole or as its events."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trellis.gateway.openai.choices import Choice, Piece, Usage, as_json
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.openai.jobs import written
from trellis.gateway.openai.response_items import COMPLETED, IN_PROGRESS, INCOMPLETE, Items
from trellis.parsers import Event, Text

if TYPE_CHECKING:
    from trellis.gateway.openai.response_fields import ResponsesRequest

FAILED = "failed"
SERVER_ERROR = "server_error"  # OpenAI's code of a response that failed


class ResponseWriter:
    """Writes one request's answer."""

    def __init__(self, name: str, asked: "ResponsesRequest") -> None:
        """`name`: what the ids of the response and of its items are made of."""
        self._asked = asked
        self._created = int(time.time())
        self._id = f"resp_{name}"
        self._number = -1
        self._items = Items(name, self._event)
        self._finish: str | None = None

    def begin(self) -> bytes:
        """The response, which is empty yet."""
        empty = self._response(IN_PROGRESS, [], None)
        return self._event("response.created", response=empty) + self._event(
            "response.in_progress", response=empty
        )

    def plain(self, choice: Choice, text: str) -> bytes:
        """What the message grows by."""
        return self._items.take([Text(text)], [])

    def piece(self, choice: Choice, piece: Piece) -> bytes:
        """What the items grow by."""
        self._finish = piece.finish or self._finish
        found = [as_json(choice, each) for each in piece.log_probs]
        events: Sequence[Event] = piece.events
        if choice.parser is None:
            events = [Text(piece.text)]
        return self._items.take(events, found)

    def end(self, usage: Usage) -> bytes:
        """The items and the response, which are complete."""
        out = self._items.end(self._status)
        last = "response.completed" if self._status == COMPLETED else "response.incomplete"
        response = self._response(self._status, self._items.made, usage)
        return out + self._event(last, response=response)

    def error(self, error: OpenAIError) -> bytes:
        """The error, and the response with what there was of it until then."""
        code = error.code or SERVER_ERROR
        told = self._event("error", code=code, message=error.message, param=error.param)
        self._items.cut()
        failed = self._response(FAILED, self._items.made, None)
        failed["error"] = {"code": SERVER_ERROR, "message": error.message}
        return told + self._event("response.failed", response=failed)

    def whole(self, choices: Sequence[Choice], pieces: Sequence[Piece], usage: Usage) -> bytes:
        """A whole response."""
        (choice,), (piece,) = choices, pieces
        self.piece(choice, piece)
        self._items.end(self._status)
        return written(self._response(self._status, self._items.made, usage))

    @property
    def _status(self) -> str:
        return INCOMPLETE if self._finish == "length" else COMPLETED

    def _event(self, kind: str, **members: Any) -> bytes:
        self._number += 1
        data = written({"type": kind, "sequence_number": self._number, **members})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _response(
        self, status: str, output: list[dict[str, Any]], usage: Usage | None
    ) -> dict[str, Any]:
        asked = self._asked
        cut = {"reason": "max_output_tokens"} if status == INCOMPLETE else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": cut,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": asked.model,
            "output": output,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": asked.shown_format},
            "tool_choice": asked.shown_choice,
            "tools": asked.shown_tools,
            "top_p": asked.top_p or 1.0,
            "truncation": "disabled",
            "usage": None if usage is None else _usage(usage),
            "user": asked.user,
            "metadata": asked.metadata or {},
        }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        # What is written to the cache is not told apart; the client's types want both.
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": usage.prompt + usage.completion,
    }
