# SPDX-License-Identifier: Apache-2.0
"""The interface of a tokenizer. A type of your own needs `encode`, `token_bytes` and the ids.

    class Bytes(Tokenizer):
        vocab_size = 256

        def encode(self, text: str) -> list[int]:
            return list(text.encode())

        def token_bytes(self, token: int) -> bytes:
            return bytes([token])

Everything else (decoding, streams, batches, stop words) follows from these.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from trellis.tokenizers.chat import ChatTemplate, Conversation, Message
from trellis.tokenizers.stream import REPLACE_RUN, Leading, StreamDecoder, TextTable


class Tokenizer(ABC):
    """Text to token ids and back.

    `decode` and `stream_decoder` give the same text: the tokens' bytes, joined and read as UTF-8,
    with U+FFFD for what cannot be UTF-8 and without the bytes still incomplete at the end.
    """

    vocab_size: int
    """How many ids there are: valid ids are 0 to vocab_size - 1, added tokens among them."""
    text_vocab_size: int | None = None
    """How many ids there are without added tokens; None where the type does not tell them apart."""
    bos_id: int | None = None
    """The id that begins a sequence, or None where the vocabulary has none."""
    eos_id: int | None = None
    """The id that ends one; what a request without `end_id` gets first of all."""
    more_end_ids: tuple[int, ...] = ()
    """Further ids that end an answer: the end of a turn, what generation_config.json lists."""
    pad_id: int | None = None
    """The id that fills a batch, or None where the vocabulary has none."""
    chat: ChatTemplate | None = None
    """How messages become a prompt, or None if the tokenizer does not say."""

    leading: Leading = Leading.KEPT
    """Which spaces at the very start of a text are the tokenizer's own (SentencePiece)."""
    decode_errors: str = REPLACE_RUN
    """What stands for bytes that are no UTF-8: REPLACE_RUN or REPLACE_BYTE."""
    thread_safe: bool = False
    """Whether several threads may encode with it at once; if not, one thread does all."""
    special_tokens: Mapping[int, bytes] = MappingProxyType({})
    """Id -> letters of every special token, which texts show or leave out."""
    skip_special_tokens: bool = True
    """Whether texts leave special tokens out where nobody says."""
    _tables: Mapping[bool, TextTable] = MappingProxyType({})
    _marked: Mapping[frozenset[int], TextTable] = MappingProxyType({})

    @property
    def cut_tokens(self) -> tuple[str, ...]:
        """Special tokens before which a text may be cut; () where nobody knows of any.

        The ids of the parts, by `encode_bare` and joined, are those of the whole text.
        """
        return ()

    @property
    def end_ids(self) -> tuple[int, ...]:
        """All ids that end an answer, `eos_id` first; () if none does."""
        first = () if self.eos_id is None else (self.eos_id,)
        return tuple(dict.fromkeys((*first, *self.more_end_ids)))

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, with BOS and the like as configured.

        >>> load("llama", "llama-tokenizer").encode("Hello world")
        [1, 22557, 1526]
        """

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that one id (0 to vocab_size - 1) adds to the text; b'' for one left out.

        >>> tokenizer.token_bytes(1526)
        b' world'
        """

    def prepare(self) -> None:
        """Begin to load what encodes sooner, if anything does; returns at once."""
        return None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in order."""
        return [self.encode(text) for text in texts]

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of text in the middle of a sequence: no BOS, no prefix space."""
        return self.encode(text)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool | None = None) -> str:
        """The text of a whole sequence; ids outside the vocabulary add nothing.

        Args:
            ids: token ids of one sequence.
            skip_special_tokens: whether special tokens have no text; None: as the type was loaded.

        >>> tokenizer.decode([1, 22557, 1526])
        'Hello world'
        """
        return self.stream_decoder(skip_special_tokens).push(ids)

    def stream_decoder(self, skip_special_tokens: bool | None = None) -> StreamDecoder:
        """A decoder for one sequence that grows; its chunks, joined, are `decode` of it all."""
        skip = self.skip_special_tokens if skip_special_tokens is None else skip_special_tokens
        table = self._tables.get(skip)
        if table is None:
            table = TextTable(partial(self._shown_bytes, skip), self.vocab_size)
            self._tables = {**self._tables, skip: table}
        return StreamDecoder(table, self.decode_errors, self.leading)

    def marked_decoder(self, shown: frozenset[str]) -> StreamDecoder:
        """A decoder that leaves special tokens out but for those whose letters are `shown`."""
        marks = frozenset(
            token
            for token, letters in self.special_tokens.items()
            if letters.decode("utf-8", "replace") in shown
        )
        if not marks:
            return self.stream_decoder(True)
        table = self._marked.get(marks)
        if table is None:
            table = TextTable(partial(self._marked_bytes, marks), self.vocab_size)
            self._marked = {**self._marked, marks: table}
        return StreamDecoder(table, self.decode_errors, self.leading)

    def _shown_bytes(self, skip: bool, token: int) -> bytes:
        """The bytes of an id in a text with or without special tokens."""
        special = self.special_tokens.get(token)
        if special is None:
            return self.token_bytes(token)
        return b"" if skip else special

    def _marked_bytes(self, marks: frozenset[int], token: int) -> bytes:
        """The bytes of an id in a text with these special tokens and no others."""
        return self._shown_bytes(token not in marks, token)

    def word_ids(self, word: str) -> list[list[int]]:
        """Every id sequence under which a stop or bad word can appear; [] for the empty word.

        That is the word inside a text and the word after a space, without BOS and without a
        space that only begins a prompt. A sequence that ends in another one is left out: the
        shorter one matches wherever it would.

        >>> load("gpt2", "gpt2-tokenizer").word_ids("stop")
        [[11338], [2245]]
        >>> load("llama", "llama-tokenizer").word_ids("</s>")
        [[2]]
        """
        if not word:
            return []
        found: list[list[int]] = []
        for text in (word, " " + word):
            ids = self.encode_fragment(text)
            if ids and not any(ids[-len(known) :] == known for known in found):
                found.append(ids)
        return found

    def encode_bare(self, text: str) -> list[int]:
        """The ids of a prompt without BOS and the like; a type that adds any overrides this."""
        return self.encode(text)

    def chat_prompt(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
        template: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt of a conversation, ready for `encode`: transformers' apply_chat_template.

        Args:
            messages: {"role": "system" | "user" | "assistant" | ..., "content": text, null or a
                list of parts, and what else the template knows, such as tool_calls}, oldest first.
            add_generation_prompt: End with what begins an answer.
            tools: JSON schemas of the functions that the model may call.
            documents: Texts to answer from, {"title": ..., "text": ...}.
            continue_final_message: End where the last message's content ends, or the named field
                of it, for the model to go on from; not with add_generation_prompt.
            template: The name of a template, for a tokenizer that has several.
            arguments: The template's own options, {"enable_thinking": False}.

        Raises:
            TokenizerError: The tokenizer has no chat template; a message is malformed; the
                template refuses the messages, fails, or runs into a limit.

        >>> llama.chat_prompt([{"role": "user", "content": "Hello"}])
        '<s>[INST] Hello [/INST]'
        """
        chat = self.chat or ChatTemplate.missing(type(self).__name__)
        return chat.render(
            Conversation(
                messages,
                add_generation_prompt,
                tools,
                documents,
                continue_final_message,
                template,
                {} if arguments is None else arguments,
            )
        )

    def chat_ids(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        continue_final_message: bool | str = False,
        template: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The ids of a conversation: apply_chat_template's with tokenize=True.

        The template alone says whether there is a BOS, where `encode` of the prompt puts the one
        that the template left out. Args and Raises: see chat_prompt.
        """
        prompt = self.chat_prompt(
            messages,
            add_generation_prompt,
            tools=tools,
            documents=documents,
            continue_final_message=continue_final_message,
            template=template,
            arguments=arguments,
        )
        return self.encode_bare(prompt)
