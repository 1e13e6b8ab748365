# SPDX-License-Identifier: Apache-2.0
"""One sequence of an answer: from an engine's events to text, log probabilities and counts.

A chunk and a whole answer are made of the same pieces, so that joined chunks are the whole.
"""

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trellis.gateway.openai import engine_events
from trellis.gateway.openai.engine_events import FAILED
from trellis.gateway.openai.reasoning_tokens import ReasoningTokens
from trellis.gateway.step_channel import PLAIN, REFUSED
from trellis.parsers import CallBegin, CallEnd, Event, Parser, TellsReasoning, Text, join_events
from trellis.pipeline.decode import SequenceText, failure

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer

log = logging.getLogger("trellis.gateway")
# The engine's reasons -> OpenAI's. A sequence that was stopped from outside has what it has.
REASONS = {"length": "length"}
CALLED = "tool_calls"  # OpenAI's reason of an answer that calls tools


@dataclass(slots=True)
class TokenLogProb:
    """A token with its log probability, and those that were most likely in its place."""

    token: int
    log_prob: float | None  # None: of a prompt's first token
    top: list[tuple[int, float]] = field(default_factory=list)
    offset: int = 0  # characters of the text before it


@dataclass(slots=True)
class Piece:
    """What an event adds to a sequence."""

    text: str = ""
    log_probs: list[TokenLogProb] = field(default_factory=list)
    finish: str | None = None
    error: tuple[str, str] | None = None  # message and code of an error that ends it
    events: list[Event] = field(default_factory=list)  # of a parser, `text` among them

    def add(self, other: "Piece") -> None:
        """What follows it."""
        self.text += other.text
        self.log_probs += other.log_probs
        self.finish = other.finish or self.finish
        self.events += other.events


@dataclass(slots=True)
class Usage:
    """Tokens of one request, or of one sequence of it."""

    prompt: int = 0
    completion: int = 0
    cached: int | None = None  # of the prompt, from the engine's cache; None: not said
    reasoning: int | None = None  # of the completion; None: it is not told from text

    def as_json(self) -> dict[str, Any]:
        """OpenAI's `usage`."""
        made: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        if self.cached is not None:
            made["prompt_tokens_details"] = {"cached_tokens": self.cached}
        if self.reasoning is not None:
            made["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return made


class Choice:
    """A sequence on its way."""

    def __init__(
        self,
        index: int,
        text: SequenceText,
        tokenizer: "Tokenizer",
        prompt: list[int],
        log_probs: bool = False,
        parser: Parser | None = None,
        reasons: bool = False,
        used: Usage | None = None,
        first: bool = True,
        one_call: bool = False,
    ) -> None:
        """`text`: makes it of ids; `prompt`: its ids.

        `log_probs`: whether those of the answer are wanted; `parser`: what tells calls and
        reasoning from the text; `reasons`: whether it tells reasoning. `used`: the tokens of all
        sequences of the request, to which this adds its own as they come. `first`: whether it is
        the first sequence of its prompt, whose cached tokens count once, as the prompt does.
        `one_call`: whether nothing may follow its first call; the parser tells where that ends.
        """
        self.index = index
        self.parser = parser
        self.called = 0  # how many calls it has made
        self._open_calls = 0  # of which the end has not come
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.completion = 0  # tokens that the engine made so far
        self.cached: int | None = None
        self.finish: str | None = None
        self.prompt_log_probs: list[TokenLogProb] = []
        self.characters = 0  # of its text so far; counted for log probabilities alone
        self._text = text
        self.log_probs = log_probs
        self._reasoning = ReasoningTokens() if reasons else None
        self._used = Usage() if used is None else used
        self._first = first
        self._one_call = one_call
        self.over = False  # behind the first call, where that is the last
        if reasons:
            self._used.reasoning = self._used.reasoning or 0
        # Those of tokens that wait for their text: a stop string may begin in them.
        self._waiting: deque[tuple[float, list[list[Any]]]] = deque()

    def read(self, event: engine_events.Event) -> Piece:
        """What an event adds. An event after the last adds nothing."""
        if len(event) == REFUSED:
            return Piece(error=(event[1], event[2]))
        ids = event[1]
        plain = len(event) == PLAIN
        ended, cut, outputs = (False, 0, {}) if plain else event[2:]
        was_over = self.over
        try:
            if self._one_call:
                piece = self._to_first_call(ids, ended, cut, outputs)
            else:
                piece = self._parsed(ids, ended, cut, outputs)
        except Exception as error:  # whatever a tokenizer_type raises: this answer's alone
            log.error("tokens could not be decoded: %s", error)
            return Piece(error=(failure(error), FAILED))
        made = self.completion + outputs.get("num_output_tokens", len(ids))
        if ended:
            made = outputs.get("total_tokens", made)
            self.cached = outputs.get("cached_tokens")
            if self.cached is not None and self._first:
                self._used.cached = (self._used.cached or 0) + self.cached
        if (ended or self.over) and not was_over:
            reason = REASONS.get(outputs.get("finish_reason", "stop"), "stop")
            whole = self.called and not self._open_calls  # else a stop string cut one
            called = self.over or (whole and reason == "stop")
            self.finish = piece.finish = CALLED if called else reason
        self._used.completion += made - self.completion
        self.completion = made
        return piece

    def _parsed(self, ids: list[int], ended: bool, cut: int, outputs: dict[str, Any]) -> Piece:
        """What ids add. Raises what a tokenizer_type does."""
        if self.log_probs:
            piece = self._with_log_probs(ids, ended, cut, outputs)
        elif self._reasoning is not None:
            piece = Piece("".join(self._token_texts(ids, ended, cut)))
        else:
            piece = Piece(self._text.add(ids, ended, cut))
        if self.parser is not None:
            self._parse(self.parser, piece, ended)
        return piece

    def _to_first_call(
        self, ids: list[int], ended: bool, cut: int, outputs: dict[str, Any]
    ) -> Piece:
        """What ids add as far as the token that ends the first call: id by id, wherever it is."""
        made = Piece()
        for at in range(max(len(ids), 1)):
            if self.over:
                break
            last = at >= len(ids) - 1
            made.add(
                self._parsed(
                    ids[at : at + 1],
                    ended and last,
                    cut if last else 0,
                    {} if at else outputs,
                )
            )
        made.events = join_events(made.events)
        return made

    def _parse(self, parser: Parser, piece: Piece, ended: bool) -> None:
        """Tell what is in a piece's text."""
        piece.events = parser.feed(piece.text)
        if self._one_call:
            piece.events, self.over = _first_call(piece.events)
        if ended and not self.over:
            piece.events += parser.end()
            if self._one_call:  # why it ended is the engine's word then
                piece.events, _ = _first_call(piece.events)
        if self._reasoning is not None and isinstance(parser, TellsReasoning):
            before = self._reasoning.count
            self._reasoning.take(*parser.take_reasoned())
            self._used.reasoning = (self._used.reasoning or 0) + self._reasoning.count - before
        piece.text = "".join(event.text for event in piece.events if isinstance(event, Text))
        begun = sum(isinstance(event, CallBegin) for event in piece.events)
        self.called += begun
        self._open_calls += begun - sum(isinstance(event, CallEnd) for event in piece.events)

    @property
    def reasoning(self) -> int | None:
        """How many tokens were reasoning so far; None: that is not told from text."""
        return None if self._reasoning is None else self._reasoning.count

    def add(self, ids: list[int]) -> str:
        """The text that ids add where nothing else is told. Raises what a tokenizer_type does."""
        self.completion += len(ids)
        self._used.completion += len(ids)
        return self._text.add(ids, False)

    def _with_log_probs(
        self, ids: list[int], ended: bool, cut: int, outputs: dict[str, Any]
    ) -> Piece:
        """Token by token, so that each knows where in the text it stands."""
        if "prompt_log_probs" in outputs:
            self.prompt_log_probs = _of_prompt(self.prompt, outputs["prompt_log_probs"])
        made = outputs.get("output_log_probs", [])
        top = outputs.get("top_log_probs") or [[]] * len(made)
        self._waiting.extend(zip(made, top, strict=True))
        text, found = "", []
        texts = self._token_texts(ids, ended, cut)
        for token in ids:
            if self._waiting:
                log_prob, likeliest = self._waiting.popleft()
                pairs = [(each[0], each[1]) for each in likeliest]
                offset = self.characters + len(text)
                found.append(TokenLogProb(token, log_prob, pairs, offset))
            text += next(texts)
        text += "".join(texts)
        self.characters += len(text)
        return Piece(text, found)

    def _token_texts(self, ids: list[int], ended: bool, cut: int) -> Iterator[str]:
        """The text that each id adds, and then what the end does where there is none."""
        for at, token in enumerate(ids):
            last = ended and at == len(ids) - 1  # the one that a stop string takes a part of
            text = self._text.add([token], last, cut if last else 0)
            if self._reasoning is not None:
                self._reasoning.add(text)
            yield text
        if ended and not ids:
            yield self._text.add([], ended=True)


def _first_call(events: list[Event]) -> tuple[list[Event], bool]:
    """The events as far as the end of a call, and whether there is one."""
    for at, event in enumerate(events):
        if isinstance(event, CallEnd):
            return events[: at + 1], True
    return events, False


def _of_prompt(ids: list[int], said: list[Any]) -> list[TokenLogProb]:
    """The log probabilities of a prompt's tokens; the first has none."""
    return [
        TokenLogProb(token, None)
        if each is None
        else TokenLogProb(token, each[0], [(pair[0], pair[1]) for pair in each[1]])
        for token, each in zip(ids, said, strict=True)
    ]


def token_text(tokenizer: "Tokenizer", token: int) -> tuple[str, bytes]:
    """A token's text, with U+FFFD for what is no whole character, and its bytes."""
    data = tokenizer.special_tokens.get(token)
    if data is None:
        data = tokenizer.token_bytes(token) if 0 <= token < tokenizer.vocab_size else b""
    return data.decode("utf-8", "replace"), data


def as_json(choice: Choice, found: TokenLogProb) -> dict[str, Any]:
    """A token's log probability as chats and responses have it."""
    top = [_token(choice, token, log_prob) for token, log_prob in found.top]
    return {**_token(choice, found.token, found.log_prob), "top_logprobs": top}


def _token(choice: Choice, token: int, log_prob: float | None) -> dict[str, Any]:
    text, data = token_text(choice.tokenizer, token)
    return {"token": text, "logprob": log_prob, "bytes": list(data)}
