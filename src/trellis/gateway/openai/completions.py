# SPDX-License-Identifier: Apache-2.0
"""POST /v1/completions."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from trellis.gateway.metrics.record import record_of
from trellis.gateway.openai.asking import LogProbs, check_ids, encode, read_inputs
from trellis.gateway.openai.choices import Choice, Piece, TokenLogProb, Usage, token_text
from trellis.gateway.openai.endpoint import Endpoint, request_id
from trellis.gateway.openai.errors import Names, OpenAIError, bad
from trellis.gateway.openai.fields import FAIL_FAST, Count, Generating
from trellis.gateway.openai.generation import Generation
from trellis.gateway.openai.jobs import DONE, Prompt, error_event, written
from trellis.gateway.openai.messages import INLINE_BYTES
from trellis.gateway.openai.served import Served, find_served
from trellis.gateway.openai.structure import Structured
from trellis.gateway.refusals import quoted
from trellis.gateway.sending import Client, Scope
from trellis.gateway.state import State

DEFAULT_TOKENS = 16  # OpenAI's own
MOST_TOP = 20
MOST_PROMPTS = 1024

Ids = Annotated[list[Count], FAIL_FAST]
Many = Field(fail_fast=True, max_length=MOST_PROMPTS)
Prompts = str | Ids | Annotated[list[str], Many] | Annotated[list[Ids], Many]


class CompletionRequest(Structured):
    """The fields of a completion."""

    rejected: ClassVar[Mapping[str, str]] = {
        **Generating.rejected,
        "suffix": "text is only made behind the prompt; leave it out",
        "prompt_embeds": "send the prompt as text or token ids",
    }
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {**Generating.neutral, "suffix": ("",)}

    prompt: Prompts
    max_tokens: Count | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    add_special_tokens: bool | None = None
    suffix: Any = None
    prompt_embeds: Any = None

    @property
    def names(self) -> Names:
        """One field asks for both."""
        return {"top_logprobs": "logprobs"}


class Completions(Endpoint):
    """The endpoint."""

    name = "/v1/completions"

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = await self.read(CompletionRequest, body)
        streams, echo = asked.streams, bool(asked.echo)
        most = DEFAULT_TOKENS if asked.max_tokens is None else asked.max_tokens
        if most == 0 and not echo:
            raise bad("max_tokens", "0 only means something with echo: true; send 1 or more")
        record = record_of(scope)
        served = await find_served(self.state, asked.model, record)
        with record.timed("encode"):
            prompts = await _prompts(self.state, served, asked)
        n = asked.n or 1
        limits = served.preprocessor.limits.request
        many = limits.max_prompts_per_request
        if many is not None and len(prompts) > many:
            raise bad("prompt", f"{len(prompts)} prompts; send at most {many}")
        wanted = LogProbs(
            asked.logprobs is not None, asked.logprobs or 0, echo and asked.logprobs is not None
        )
        constraint = asked.constraint
        inputs = read_inputs(served, asked, max(most, 1), wanted, streams)
        if constraint is not None:
            with record.timed("constrain"):
                inputs.hold_to(served, constraint)
        generation = Generation(self.state, served, record)
        await generation.prepare(prompts, n, inputs, wanted, streams)
        made_id = request_id(scope)
        writer = CompletionWriter(f"cmpl-{made_id}", asked, generation, prompts, n)
        await generation.run(client, writer, streams)


async def _prompts(state: State, served: Served, asked: CompletionRequest) -> list[Prompt]:
    """The prompts of a request. Raises OpenAIError."""
    sent = asked.prompt
    each: Sequence[Any] = sent
    single = isinstance(sent, str) or (bool(sent) and isinstance(sent[0], int))
    if single:
        each = [sent]
    if not each:
        raise bad("prompt", "the list is empty; send at least one prompt")
    bare = asked.add_special_tokens is False

    def work() -> list[Prompt]:
        prompts = []
        for at, prompt in enumerate(each):
            where = "prompt" if single else f"prompt[{at}]"
            if isinstance(prompt, str):
                prompts.append(Prompt(encode(served, prompt, bare, where), prompt))
            else:
                prompts.append(Prompt(check_ids(served, prompt, where)))
        if asked.echo:
            return [_with_text(served, prompt, asked.skip_special_tokens) for prompt in prompts]
        return prompts

    if sum(map(len, each)) <= INLINE_BYTES or not served.thread_safe:
        return work()
    return await asyncio.get_running_loop().run_in_executor(state.encoders, work)


def _with_text(served: Served, prompt: Prompt, skip: bool | None) -> Prompt:
    """With the text that `echo` shows: that of ids is theirs."""
    if prompt.text is not None:
        return prompt
    return replace(prompt, text=served.tokenizer.decode(prompt.ids, skip))


class CompletionWriter:
    """Writes `text_completion`, whole and in chunks."""

    def __init__(
        self,
        name: str,
        asked: CompletionRequest,
        generation: Generation,
        prompts: Sequence[Prompt],
        n: int,
    ) -> None:
        """`name`: the answer's id; `prompts`: with their texts if they are shown."""
        about = {"id": name, "object": "text_completion", "created": int(time.time())}
        self._about: dict[str, Any] = {**about, "model": asked.model}
        self._echoes = [prompt.text or "" if asked.echo else "" for prompt in prompts]
        self._echo = bool(asked.echo)
        self._none = asked.max_tokens == 0
        self._top = asked.logprobs
        self._n = n
        options = asked.stream_options
        self._usage_at_end = bool(options and options.include_usage)
        self._usage_always = bool(options and options.continuous_usage_stats)
        self._generation = generation
        self._head = b"data: " + written(self._about)[:-1] + b',"choices":[{"index":%d,"text":'
        self._heads: dict[int, bytes] = {}
        plain = b',"logprobs":null,"finish_reason":null}]'
        self._tail = plain + (b',"usage":null}\n\n' if self._usage_at_end else b"}\n\n")

    def begin(self) -> bytes:
        """Nothing: an echo is in the first chunk of its choice."""
        return b""

    def plain(self, choice: Choice, text: str) -> bytes:
        """A chunk of text."""
        head = self._heads.get(choice.index)
        if head is None or self._usage_always or self._none:
            return self.piece(choice, Piece(text))
        return head + quoted(text) + self._tail

    def piece(self, choice: Choice, piece: Piece) -> bytes:
        """A chunk, if there is something in it."""
        head = self._heads.get(choice.index)
        if head is None:
            piece = self._begun(choice, piece)
        elif self._none:
            piece = Piece(finish=piece.finish)
        if not (piece.text or piece.log_probs or piece.finish):
            return b""
        if head is None:
            head = self._heads[choice.index] = self._head % choice.index
        text = quoted(piece.text)
        if not (piece.log_probs or piece.finish or self._usage_always):
            return head + text + self._tail
        log_probs = (
            written(self._log_probs(choice, piece.log_probs)) if piece.log_probs else b"null"
        )
        usage = b""
        if self._usage_always:
            usage = b',"usage":' + written(self._used(self._generation.usage()))
        elif self._usage_at_end:
            usage = b',"usage":null'
        finish = written(piece.finish)
        return (
            head
            + text
            + b',"logprobs":%b,"finish_reason":%b}]%b}\n\n'
            % (
                log_probs,
                finish,
                usage,
            )
        )

    def end(self, usage: Usage) -> bytes:
        """The usage if it is asked for, and the end."""
        if not self._usage_at_end:
            return DONE
        last = {**self._about, "choices": [], "usage": self._used(usage)}
        return b"data: " + written(last) + b"\n\n" + DONE

    def error(self, error: OpenAIError) -> bytes:
        """The error alone."""
        return error_event(error)

    def whole(self, choices: Sequence[Choice], pieces: Sequence[Piece], usage: Usage) -> bytes:
        """A whole answer."""
        made = []
        for choice, plain in zip(choices, pieces, strict=True):
            piece = self._begun(choice, plain)
            found = None if self._top is None else self._log_probs(choice, piece.log_probs)
            made.append(
                {
                    "index": choice.index,
                    "text": piece.text,
                    "logprobs": found,
                    "finish_reason": piece.finish,
                }
            )
        return written({**self._about, "choices": made, "usage": self._used(usage)})

    def _begun(self, choice: Choice, piece: Piece) -> Piece:
        """The first piece of a choice, with its echo; of max_tokens 0 the echo alone."""
        if self._none:
            piece = Piece(finish="length" if piece.finish else None)
        if not self._echo:
            return piece
        echo = self._echoes[choice.index // self._n]
        for each in piece.log_probs:
            each.offset += len(echo)
        choice.characters += len(echo)
        return replace(
            piece,
            text=echo + piece.text,
            log_probs=[*_placed(choice, choice.prompt_log_probs), *piece.log_probs],
        )

    def _used(self, usage: Usage) -> dict[str, Any]:
        return replace(usage, completion=0 if self._none else usage.completion).as_json()

    def _log_probs(self, choice: Choice, found: Sequence[TokenLogProb]) -> dict[str, Any]:
        """The old form: lists side by side."""
        tokens = [_token(choice, each.token) for each in found]
        tops = [self._tops(choice, each) for each in found]
        return {
            "tokens": tokens,
            "token_logprobs": [each.log_prob for each in found],
            "top_logprobs": tops,
            "text_offset": [each.offset for each in found],
        }

    def _tops(self, choice: Choice, found: TokenLogProb) -> dict[str, float] | None:
        """The most likely tokens, and the chosen one if it is none of them."""
        if found.log_prob is None:
            return None
        top = {_token(choice, token): log_prob for token, log_prob in found.top}
        top.setdefault(_token(choice, found.token), found.log_prob)
        return top


def _token(choice: Choice, token: int) -> str:
    """A token's text, and where it is no whole character its bytes, so that no two are alike."""
    text, data = token_text(choice.tokenizer, token)
    if "\ufffd" not in text:
        return text
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _placed(choice: Choice, found: Sequence[TokenLogProb]) -> list[TokenLogProb]:
    """With their places in the prompt's text."""
    decoder = choice.tokenizer.stream_decoder()
    at, placed = 0, []
    for each in found:
        placed.append(replace(each, offset=at))
        at += len(decoder.push([each.token]))
    return placed
