# SPDX-License-Identifier: Apache-2.0
"""vLLM's own parsers, as its OpenAI server asks them; the package vLLM must be installed."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream

from support.parser_readings import Called, Reading
from trellis.parsers.registry import known_formats, load

MARKERS = ("<think>", "</think>", "[THINK]", "[/THINK]", "<|im_start|>", "<|im_end|>")


@cache
def tokenizer(file: Path, lacks: tuple[str, ...] = ()) -> Any:
    """A tokenizer of this file that has the markers of all formats as tokens, but `lacks`.

    vLLM's parsers look for markers among ids, and for no other token.
    """
    from transformers import PreTrainedTokenizerFast

    made: Any = PreTrainedTokenizerFast(tokenizer_file=str(file))  # type: ignore[no-untyped-call]
    shown = {marker for name in known_formats() for marker in load(name).shown}
    made.add_tokens(sorted((shown | set(MARKERS)) - set(lacks)), special_tokens=True)
    vocabulary = made.get_vocab()  # asked for by each parser; vLLM's server keeps it, too
    made.get_vocab = lambda: vocabulary
    return made


class VllmParser:
    """A tool parser and a reasoning parser of vLLM; "" for none. New for each answer."""

    def __init__(
        self,
        names: Sequence[str],
        tokens: Any,
        tools: Sequence[Any],
        prompt: str,
        thinks: bool | None,
    ) -> None:
        """`tools`: as a request has them. `thinks`: its `enable_thinking`, if any."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.parser.parser_manager import ParserManager

        logging.disable(logging.ERROR)
        tool, reasoning = names
        self._is_harmony = tool == "openai"
        made = ParserManager.get_parser(
            tool, reasoning or None, enable_auto_tools=True, is_harmony=self._is_harmony
        )
        if made is None:
            raise ValueError(f"vLLM has no parser for {names}")
        options = {} if thinks is None else {"enable_thinking": thinks, "thinking": thinks}
        self._request = ChatCompletionRequest(
            model="m",
            messages=[{"role": "user", "content": "What now?"}],
            tools=list(tools),
            tool_choice="auto",
            chat_template_kwargs=options,
        )
        self._tokens = tokens
        self._prompt = self.encode(prompt)
        self._parser = made(tokens, self._request.tools, chat_template_kwargs=options)

    def whole(self, text: str) -> Reading:
        """What it makes of a whole answer."""
        self._parser.set_prompt_token_ids(self._prompt)
        reasoning, shown, calls = self._parser.parse(
            text, self._request, enable_auto_tools=True, model_output_token_ids=self.encode(text)
        )
        called = tuple(Called(call.name, call.arguments) for call in calls or ())
        return Reading(reasoning or "", shown or "", called)

    def streamed(self, pieces: Sequence[Sequence[int]]) -> Reading:
        """What a client has of an answer whose ids come in these pieces."""
        reasoning, shown = "", ""
        calls: dict[int, Called] = {}
        decode = self._decoder()
        for number, ids in enumerate(pieces):
            delta = self._parser.parse_delta(
                decode(ids),
                list(ids),
                self._request,
                prompt_token_ids=self._prompt,
                finished=number == len(pieces) - 1,
            )
            if delta is None:
                continue
            reasoning += delta.reasoning or ""
            shown += delta.content or ""
            for call in delta.tool_calls or ():
                name, arguments, _ = calls.get(call.index, Called("", ""))
                function = call.function
                calls[call.index] = Called(
                    name + (function.name or ""), arguments + (function.arguments or "")
                )
        return Reading(reasoning, shown, tuple(calls[index] for index in sorted(calls)))

    def encode(self, text: str) -> list[int]:
        """The ids of a text that has markers in it."""
        if self._is_harmony:
            from vllm.entrypoints.openai.parser.harmony_utils import get_encoding

            return list(get_encoding().encode(text, allowed_special="all"))
        return list(self._tokens.encode(text, add_special_tokens=False))

    def _decoder(self) -> Callable[[Sequence[int]], str]:
        """From the next ids to the text that they add: half of a letter is held back."""
        if self._is_harmony:
            return lambda ids: ""  # only ids are read
        stream = DecodeStream(skip_special_tokens=False)
        return lambda ids: "".join(stream.step(self._tokens._tokenizer, id) or "" for id in ids)
