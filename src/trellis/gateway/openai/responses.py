# SPDX-License-Identifier: Apache-2.0
"""POST /v1/responses: text, whole and as events. Nothing is kept from one request to the next."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trellis.gateway.openai.asking import LogProbs, read_inputs
from trellis.gateway.openai.chat import MOST_TOP
from trellis.gateway.openai.choices import Choice, Piece, Usage, as_json
from trellis.gateway.openai.endpoint import Endpoint, request_headers
from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.fields import FAIL_FAST, LATER, Fields, Positive, Sampling, read_fields
from trellis.gateway.openai.generation import Generation
from trellis.gateway.openai.jobs import Prompt, written
from trellis.gateway.openai.messages import Message, Parts, chat_prompt
from trellis.gateway.openai.served import find_served
from trellis.gateway.sending import Client, Scope

STATELESS = "nothing is kept from one request to the next; send all of the conversation as input"
LOG_PROBS = "message.output_text.logprobs"


class InputMessage(Fields):
    """An item of `input`: a message."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Parts
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class TextFormat(Fields):
    """`text`: what the answer's text is to be."""

    rejected: ClassVar[Mapping[str, str]] = {"format": LATER, "verbosity": "leave it out"}
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "format": ({"type": "text"},),
        "verbosity": ("medium",),
    }
    format: Any = None
    verbosity: Any = None


class ResponsesRequest(Sampling):
    """The fields of a response."""

    rejected: ClassVar[Mapping[str, str]] = {
        "store": STATELESS,
        "previous_response_id": STATELESS,
        "conversation": STATELESS,
        "background": "an answer is only sent to whoever waits for it; leave it out",
        "tools": LATER,
        "tool_choice": LATER,
        "max_tool_calls": LATER,
        "reasoning": "reasoning is not told from text yet; leave it out",
        "prompt": "send the text as input and instructions",
        "truncation": "a prompt that is too long is rejected; leave it out",
        "context_management": STATELESS,
    }
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "truncation": ("disabled",),
        "reasoning": ({},),
    }

    input: str | Annotated[list[InputMessage], Field(fail_fast=True, min_length=1)]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    include: Annotated[list[str], FAIL_FAST] | None = None
    text: TextFormat | None = None
    stream_options: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: Any = None
    conversation: Any = None
    background: Any = None
    tools: Any = None
    tool_choice: Any = None
    max_tool_calls: Any = None
    reasoning: Any = None
    prompt: Any = None
    truncation: Any = None
    context_management: Any = None

    def messages(self) -> list[Message]:
        """The conversation."""
        made = []
        if self.instructions:
            made.append(Message(role="system", content=self.instructions))
        if isinstance(self.input, str):
            return [*made, Message(role="user", content=self.input)]
        return made + [Message(role=item.role, content=item.content) for item in self.input]

    @property
    def log_probs(self) -> LogProbs:
        """Which log probabilities are wanted. Raises OpenAIError."""
        for at, name in enumerate(self.include or ()):
            if name != LOG_PROBS:
                raise bad(f"include[{at}]", f"{name[:64]!r}: only {LOG_PROBS} is known")
        wanted = bool(self.include)
        if self.top_logprobs and not wanted:
            raise bad("top_logprobs", f"needs include: [{LOG_PROBS!r}]")
        return LogProbs(wanted, self.top_logprobs or 0)


class Responses(Endpoint):
    """The endpoint."""

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = read_fields(ResponsesRequest, body, self.state.limits)
        if asked.text is not None:
            asked.text.check_rejected()
        log_probs, streams = asked.log_probs, bool(asked.stream)
        served = await find_served(self.state, asked.model)
        text, ids = await chat_prompt(
            self.state, served, asked.messages(), param="input", before=bool(asked.instructions)
        )
        most = asked.max_output_tokens or served.room(len(ids))
        inputs = read_inputs(served, asked, most, log_probs, streams)
        generation = Generation(self.state, served, "input")
        await generation.prepare([Prompt(ids, text)], 1, inputs, log_probs, streams)
        request_id, headers = request_headers()
        writer = ResponseWriter(request_id, asked, generation)
        await generation.run(client, headers, writer, streams)


class ResponseWriter:
    """Writes a `response`, whole or as its events."""

    def __init__(self, name: str, asked: ResponsesRequest, generation: Generation) -> None:
        """`name`: what the ids of the response and of its message are made of."""
        self._asked = asked
        self._generation = generation
        self._created = int(time.time())
        self._id, self._item = f"resp_{name}", f"msg_{name}"
        self._number = -1
        self._text: list[str] = []
        self._found: list[dict[str, Any]] = []
        self._finish: str | None = None
        self._wants = asked.log_probs.answer

    def begin(self) -> bytes:
        """The response, and its one message, which are empty yet."""
        item = self._message("in_progress", [])
        return (
            self._event("response.created", response=self._response("in_progress", [], None))
            + self._event("response.in_progress", response=self._response("in_progress", [], None))
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._event("response.content_part.added", **self._place(), part=_part("", []))
        )

    def plain(self, choice: Choice, text: str) -> bytes:
        """What the message grows by."""
        return self.piece(choice, Piece(text))

    def piece(self, choice: Choice, piece: Piece) -> bytes:
        """What the message grows by."""
        self._finish = piece.finish or self._finish
        found = [as_json(choice, each) for each in piece.log_probs]
        if not (piece.text or found):
            return b""
        self._text.append(piece.text)
        self._found += found
        return self._event(
            "response.output_text.delta", **self._place(), delta=piece.text, logprobs=found
        )

    def end(self, usage: Usage) -> bytes:
        """The message and the response, which are complete."""
        text = "".join(self._text)
        part = _part(text, self._found)
        item = self._message(self._status, [part])
        last = "response.completed" if self._status == "completed" else "response.incomplete"
        return (
            self._event(
                "response.output_text.done", **self._place(), text=text, logprobs=self._found
            )
            + self._event("response.content_part.done", **self._place(), part=part)
            + self._event("response.output_item.done", output_index=0, item=item)
            + self._event(last, response=self._response(self._status, [item], usage))
        )

    def whole(self, choices: Sequence[Choice], pieces: Sequence[Piece], usage: Usage) -> bytes:
        """A whole response."""
        (choice,), (piece,) = choices, pieces
        self._finish = piece.finish
        found = [as_json(choice, each) for each in piece.log_probs]
        item = self._message(self._status, [_part(piece.text, found)])
        return written(self._response(self._status, [item], usage))

    @property
    def _status(self) -> str:
        return "incomplete" if self._finish == "length" else "completed"

    def _event(self, kind: str, **members: Any) -> bytes:
        self._number += 1
        data = written({"type": kind, "sequence_number": self._number, **members})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._item, "output_index": 0, "content_index": 0}

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _response(
        self, status: str, output: list[dict[str, Any]], usage: Usage | None
    ) -> dict[str, Any]:
        asked = self._asked
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
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
            "parallel_tool_calls": bool(asked.parallel_tool_calls),
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
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
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt + usage.completion,
    }


def _part(text: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": found}
