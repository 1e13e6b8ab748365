# SPDX-License-Identifier: Apache-2.0
"""The items of a response, as the events of an answer make them, and the events that tell of them.

    reasoning        what the model thinks
    message          text
    function_call    a call

An item begins with the first that is in it, and ends when another begins. A whole response is made
of the same items as a streamed one.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from trellis.gateway.openai.calls import new_call_id
from trellis.parsers import CallArguments, CallBegin, CallEnd, Event, Reasoning, Text

Told = Callable[..., bytes]  # a kind of event and its members -> its bytes
IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"


class Items:
    """The items so far."""

    def __init__(self, name: str, tell: Told) -> None:
        """`name`: what their ids are made of; `tell`: writes an event."""
        self.made: list[dict[str, Any]] = []
        self._name = name
        self._tell = tell
        self._open: str = ""  # the type of the last item; "": it is complete

    def take(self, events: Sequence[Event], log_probs: Sequence[dict[str, Any]]) -> bytes:
        """What a piece adds; its log probabilities are told with its text."""
        return b"".join(self._take(events, list(log_probs)))

    def end(self, status: str) -> bytes:
        """The last item is complete, or cut off; an answer has at least one message."""
        out = b"" if self.made else b"".join(self._text("", []))
        return out + b"".join(self._close(status))

    def cut(self) -> None:
        """The last item stays as it is; an error ends the stream, so nothing tells of it."""
        if self._open:
            self.made[-1]["status"] = INCOMPLETE
            self._open = ""

    def _take(self, events: Sequence[Event], log_probs: list[dict[str, Any]]) -> Iterator[bytes]:
        for event in events:
            match event:
                case Text(text):
                    if text:
                        yield from self._text(text, log_probs)
                        log_probs = []
                case Reasoning(text):
                    yield from self._think(text)
                case CallBegin():
                    yield from self._call(event)
                case CallArguments(_, text):
                    self.made[-1]["arguments"] += text
                    yield self._delta("response.function_call_arguments.delta", text)
                case CallEnd():
                    yield from self._close(COMPLETED)
        if log_probs:
            yield from self._text("", log_probs)

    def _text(self, text: str, log_probs: list[dict[str, Any]]) -> Iterator[bytes]:
        if self._open != "message":
            item = {"id": f"msg_{self._name}", "role": "assistant", "content": []}
            yield from self._begin("message", item)
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield from self._part(part)
        part = self.made[-1]["content"][0]
        part["text"] += text
        part["logprobs"] += log_probs
        if text or log_probs:
            yield self._delta(
                "response.output_text.delta", text, content_index=0, logprobs=log_probs
            )

    def _think(self, text: str) -> Iterator[bytes]:
        if self._open != "reasoning":
            item = {"id": f"rs_{self._name}", "summary": [], "content": []}
            yield from self._begin("reasoning", item)
            yield from self._part({"type": "reasoning_text", "text": ""})
        self.made[-1]["content"][0]["text"] += text
        yield self._delta("response.reasoning_text.delta", text, content_index=0)

    def _call(self, event: CallBegin) -> Iterator[bytes]:
        item = {
            "id": f"fc_{self._name}",
            "call_id": event.call_id or new_call_id(),
            "name": event.name,
            "arguments": "",
        }
        yield from self._begin("function_call", item)

    def _begin(self, kind: str, item: dict[str, Any]) -> Iterator[bytes]:
        yield from self._close(COMPLETED)
        number = len(self.made)
        if number:
            item["id"] += f"_{number}"
        self.made.append({"type": kind, "status": IN_PROGRESS, **item})
        self._open = kind
        yield self._tell("response.output_item.added", output_index=number, item=self.made[-1])

    def _part(self, part: dict[str, Any]) -> Iterator[bytes]:
        yield self._tell("response.content_part.added", **self._place(), content_index=0, part=part)
        self.made[-1]["content"] = [part]

    def _close(self, status: str) -> Iterator[bytes]:
        """The open item, if there is one, is complete."""
        if not self._open:
            return
        item = self.made[-1]
        item["status"] = status
        if self._open == "function_call":
            yield self._tell(
                "response.function_call_arguments.done",
                **self._place(),
                arguments=item["arguments"],
            )
        else:
            part = item["content"][0]
            yield self._done(part)
            yield self._tell(
                "response.content_part.done", **self._place(), content_index=0, part=part
            )
        yield self._tell("response.output_item.done", output_index=len(self.made) - 1, item=item)
        self._open = ""

    def _done(self, part: dict[str, Any]) -> bytes:
        place = {**self._place(), "content_index": 0, "text": part["text"]}
        if part["type"] == "reasoning_text":
            return self._tell("response.reasoning_text.done", **place)
        return self._tell("response.output_text.done", **place, logprobs=part["logprobs"])

    def _delta(self, kind: str, text: str, **more: Any) -> bytes:
        return self._tell(kind, **self._place(), delta=text, **more)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.made[-1]["id"], "output_index": len(self.made) - 1}
