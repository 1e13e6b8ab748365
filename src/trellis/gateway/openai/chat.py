# SPDX-License-Identifier: Apache-2.0
"""POST /v1/chat/completions."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from trellis.gateway.openai.asking import LogProbs, read_inputs
from trellis.gateway.openai.choices import Choice, Piece, TokenLogProb, Usage, as_json
from trellis.gateway.openai.endpoint import Endpoint, request_headers
from trellis.gateway.openai.errors import bad
from trellis.gateway.openai.fields import LATER, NO_MEDIA, Generating, Positive, read_fields
from trellis.gateway.openai.generation import Generation
from trellis.gateway.openai.jobs import DONE, Prompt, written
from trellis.gateway.openai.messages import Messages, chat_prompt
from trellis.gateway.openai.served import find_served
from trellis.gateway.refusals import quoted
from trellis.gateway.sending import Client, Scope

MOST_TOP = 20  # as OpenAI has it
ROLE = b'"role":"assistant",'


class ChatRequest(Generating):
    """The fields of a chat."""

    rejected: ClassVar[Mapping[str, str]] = {
        **Generating.rejected,
        "tools": LATER,
        "tool_choice": LATER,
        "functions": LATER,
        "function_call": LATER,
        "audio": NO_MEDIA,
        "modalities": NO_MEDIA,
        "prediction": "what is expected is not used; leave it out",
        "web_search_options": "nothing is searched; leave it out",
        "chat_template": "the tokenizer's own is used; leave it out",
        "documents": "send them in a message, or as chat_template_kwargs",
        "reasoning_effort": "send chat_template_kwargs as the model's template knows them",
        "verbosity": "the model has no such setting; leave it out",
    }
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Generating.neutral,
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "modalities": (["text"],),
        "documents": ([],),
        "verbosity": ("medium",),
    }

    messages: Messages
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    parallel_tool_calls: bool | None = None  # of tools, of which there are none
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    modalities: Any = None
    prediction: Any = None
    web_search_options: Any = None
    chat_template: Any = None
    documents: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None

    @property
    def most_tokens(self) -> int | None:
        """How many tokens an answer may have, if that is said. Raises OpenAIError."""
        most, old = self.max_completion_tokens, self.max_tokens
        if most is not None and old is not None and most != old:
            raise bad("max_tokens", f"{old} contradicts max_completion_tokens, {most}; send one")
        return old if most is None else most

    @property
    def log_probs(self) -> LogProbs:
        """Which log probabilities are wanted. Raises OpenAIError."""
        if self.top_logprobs and not self.logprobs:
            raise bad("top_logprobs", "needs logprobs; send logprobs: true")
        return LogProbs(bool(self.logprobs), self.top_logprobs or 0)


class ChatCompletions(Endpoint):
    """The endpoint."""

    async def answer(self, scope: Scope, body: bytes, client: Client) -> None:
        """Answer one request. Raises Refusal."""
        asked = read_fields(ChatRequest, body, self.state.limits)
        most, log_probs, streams = asked.most_tokens, asked.log_probs, asked.streams
        served = await find_served(self.state, asked.model)
        continued = bool(asked.continue_final_message)
        begins = (
            not continued if asked.add_generation_prompt is None else asked.add_generation_prompt
        )
        text, ids = await chat_prompt(
            self.state, served, asked.messages, begins, continued, asked.chat_template_kwargs
        )
        inputs = read_inputs(served, asked, most or served.room(len(ids)), log_probs, streams)
        generation = Generation(self.state, served, "messages")
        await generation.prepare([Prompt(ids, text)], asked.n or 1, inputs, log_probs, streams)
        request_id, headers = request_headers()
        writer = ChatWriter(f"chatcmpl-{request_id}", asked, generation)
        await generation.run(client, headers, writer, streams)


class ChatWriter:
    """Writes `chat.completion` and its chunks."""

    def __init__(self, name: str, asked: ChatRequest, generation: Generation) -> None:
        """`name`: the answer's id."""
        created = int(time.time())
        self._about = {"id": name, "created": created, "model": asked.model}
        options = asked.stream_options
        self._usage_at_end = bool(options and options.include_usage)
        self._usage_always = bool(options and options.continuous_usage_stats)
        self._log_probs = bool(asked.logprobs)
        self._generation = generation
        about = written({**self._about, "object": "chat.completion.chunk"})
        self._head = b"data: " + about[:-1] + b',"choices":[{"index":%d,"delta":{%s'
        plain = b'},"logprobs":null,"finish_reason":null}]'
        self._tail = plain + (b',"usage":null}\n\n' if self._usage_at_end else b"}\n\n")
        self._heads: dict[int, bytes] = {}

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
        if not (piece.text or piece.log_probs or piece.finish):
            return b""
        head = self._heads.get(choice.index)
        if head is None:
            head = self._head % (choice.index, ROLE)
            self._heads[choice.index] = self._head % (choice.index, b"")
        content = b'"content":' + quoted(piece.text)
        if not (piece.log_probs or piece.finish or self._usage_always):
            return head + content + self._tail
        if not piece.text and ROLE not in head:
            content = b""
        log_probs = written(_log_probs(choice, piece.log_probs)) if piece.log_probs else b"null"
        finish = written(piece.finish)
        usage = b""
        if self._usage_always:
            usage = b',"usage":' + written(self._generation.usage().as_json())
        elif self._usage_at_end:
            usage = b',"usage":null'
        end = b'},"logprobs":%b,"finish_reason":%b}]%b}\n\n' % (log_probs, finish, usage)
        return head + content + end

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

    def whole(self, choices: Sequence[Choice], pieces: Sequence[Piece], usage: Usage) -> bytes:
        """A whole answer."""
        made = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": piece.text, "refusal": None},
                "logprobs": _log_probs(choice, piece.log_probs) if self._log_probs else None,
                "finish_reason": piece.finish,
            }
            for choice, piece in zip(choices, pieces, strict=True)
        ]
        about = {**self._about, "object": "chat.completion"}
        return written({**about, "choices": made, "usage": usage.as_json()})


def _log_probs(choice: Choice, found: Sequence[TokenLogProb]) -> dict[str, Any]:
    return {"content": [as_json(choice, each) for each in found], "refusal": None}
