# SPDX-License-Identifier: Apache-2.0
"""One sequence that is made for a request: asked, read, written as its pieces come."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trellis.gateway.metrics.meter import Meter
from trellis.gateway.openai.choices import Choice, Piece, Usage
from trellis.gateway.openai.engine_events import FAILED, Event, EventReader, StepEvents
from trellis.gateway.openai.errors import OpenAIError
from trellis.gateway.refusals import one_line
from trellis.gateway.step_channel import PLAIN, REFUSED
from trellis.gateway.triton import TritonLost
from trellis.gateway.ways import Upstream, Way
from trellis.pipeline.decode import failure

log = logging.getLogger("trellis.gateway")
DONE = b"data: [DONE]\n\n"  # the end of a stream of chats or completions


@dataclass
class Prompt:
    """A prompt of a request."""

    ids: list[int]
    text: str | None = None  # None: it was sent as ids


class Job:
    """One sequence that is made."""

    upstream: Upstream

    def __init__(
        self,
        way: Way,
        reader: EventReader,
        choice: Choice,
        meter: Meter | None = None,
        in_pieces: bool = False,
    ) -> None:
        """`in_pieces`: whether the engine answers so, to a client that streams or not."""
        self.in_pieces = in_pieces
        self.way = way
        self.reader = reader
        self.choice = choice
        self.meter = meter or Meter()
        self.complete = False
        self.opened = False
        self.begun = False  # its answer's head was read

    async def open(self) -> None:
        """Ask. Raises Refusal."""
        try:
            self.upstream = await self.way.open()
        except TritonLost as error:
            raise error.refusal from error
        self.opened = True

    async def head(self) -> None:
        """Wait for the answer to begin. Raises TritonLost, or an interruption."""
        await self.upstream.head()
        self.begun = True
        self.reader.begin(self.upstream.status, self.upstream.content_type)


class Writer(Protocol):
    """Writes an endpoint's answer."""

    def begin(self) -> bytes:
        """What a stream begins with."""

    def plain(self, choice: Choice, text: str) -> bytes:
        """What a stream's client gets of some text alone: nearly all pieces are that."""

    def piece(self, choice: Choice, piece: Piece) -> bytes:
        """What a stream's client gets of a piece; b"" for nothing."""

    def end(self, usage: Usage) -> bytes:
        """What a stream ends with."""

    def error(self, error: OpenAIError) -> bytes:
        """What a stream ends with that an error cuts off."""

    def whole(self, choices: Sequence[Choice], pieces: Sequence[Piece], usage: Usage) -> bytes:
        """A whole answer."""


class Reading:
    """A sequence's events as they come, up to where the client has all that it is to get."""

    def __init__(self, job: Job) -> None:
        self._reader = job.reader
        self._choice = job.choice
        self.ended = False  # the engine said that nothing more comes

    def _read(self, event: Event) -> Piece:
        """What an event adds."""
        if len(event) != PLAIN:
            self.ended = len(event) == REFUSED or event[2]
        return self._choice.read(event)

    @property
    def over(self) -> bool:
        """Whether the client has all that it is to get, while the engine goes on."""
        return self._reader.stopped or (self._choice.over and not self.ended)


class Flow(Reading):
    """A sequence's pieces, written as they come where the client keeps up."""

    def __init__(
        self,
        job: Job,
        writer: Writer,
        write: Callable[[bytes], bool],
        refusal: Callable[[str, str], OpenAIError],
    ) -> None:
        super().__init__(job)
        choice = job.choice
        self._piece = writer.piece
        self._plain = writer.plain
        has_more = choice.log_probs or choice.parser is not None
        self._is_plain = isinstance(job.reader, StepEvents) and not has_more
        self._write = write
        self._refusal = refusal
        self.left = b""  # to be sent with patience
        self.error: OpenAIError | None = None  # that ended it

    def take(self, data: Any) -> bool:
        """Take a piece of the engine's answer.

        False if something is left, it has failed, or nothing more is wanted (`over`).
        """
        if self._is_plain and len(data) == PLAIN:
            return self._take_plain(data[1])
        out = b""
        for event in self._reader.read(data):
            out += self.made(event)
        if self.error is not None or (out and not self._write(out)):
            self.left = out
            return False
        return not self.over

    def _take_plain(self, ids: list[int]) -> bool:
        """The short way of a step's new ids to the client."""
        try:
            text = self._choice.add(ids)
        except Exception as error:  # whatever a tokenizer_type raises: this answer's alone
            self.error = self._refusal(failure(error), FAILED)
            return False
        if not text:
            return True
        out = one_line(self._plain(self._choice, text))
        if self._write(out):
            return True
        self.left = out
        return False

    def made(self, event: list[Any]) -> bytes:
        """What the client gets of an event; never raises, since others' events come after it."""
        piece = self._read(event)
        if piece.error is not None:
            self.error = self.error or self._refusal(*piece.error)
            return b""
        try:
            return one_line(self._piece(self._choice, piece))
        except Exception as error:  # of ours: this answer's alone
            log.error("an answer could not be written: %s: %s", type(error).__name__, error)
            self.error = self.error or OpenAIError(500, "the gateway failed; its log says why")
            return b""


class Gathering(Reading):
    """A sequence's pieces as one."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.piece = Piece()

    def take(self, data: Any) -> bool:
        """Take a piece of the engine's answer; False if it failed, or nothing more is wanted."""
        self.add(self._reader.read(data))
        return self.piece.error is None and not self.over

    def add(self, events: Sequence[Event]) -> None:
        """Take what a piece of the answer completes; nothing behind an error."""
        for event in events:
            if self.piece.error is not None:
                return
            made = self._read(event)
            self.piece.error = made.error
            self.piece.add(made)


def error_event(error: OpenAIError) -> bytes:
    """An error in a stream of chats or completions, which ends it.

    >>> error_event(OpenAIError(500, "the engine failed"))
    b'data: {"error":{"message":"the engine failed","type":"server_error","param":null,\
"code":null}}\\n\\n'
    """
    return b"data: " + error.body() + b"\n\n"


def written(data: Any) -> bytes:
    """JSON, UTF-8, without blanks."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
