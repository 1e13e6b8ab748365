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
from typing import Any

from tokenizer_registry.core.chat import ChatTemplate, Conversation, Message
from tokenizer_registry.core.stream import REPLACE_RUN, StreamDecoder, TextTable


class Tokenizer(ABC):
    """Text to token ids and back.

    `decode` and `stream_decoder` give the same text: the tokens' bytes, joined and read as UTF-8,
    with U+FFFD for what cannot be UTF-8 and without the bytes still incomplete at the end.
    """

    vocab_size: int
    """How many ids there are: valid ids are 0 to vocab_size - 1, added tokens among them."""
    bos_id: int | None = None
    """The id that begins a sequence, or None where the vocabulary has none."""
    eos_id: int | None = None
    """The id that ends one; what a request without `end_id` gets."""
    pad_id: int | None = None
    """The id that fills a batch, or None where the vocabulary has none."""
    chat: ChatTemplate | None = None
    """How messages become a prompt, or None if the tokenizer does not say."""

    strip_first_space: bool = False
    """Whether a space at the very start of a text is the tokenizer's own (SentencePiece)."""
    decode_errors: str = REPLACE_RUN
    """What stands for bytes that are no UTF-8: REPLACE_RUN or REPLACE_BYTE."""
    thread_safe: bool = False
    """Whether several threads may encode with it at once; if not, one thread does all."""
    _table: TextTable | None = None

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

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, in order."""
        return [self.encode(text) for text in texts]

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of text in the middle of a sequence: no BOS, no prefix space."""
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a whole sequence; ids outside the vocabulary add nothing.

        >>> tokenizer.decode([1, 22557, 1526])
        'Hello world'
        """
        return self.stream_decoder().push(ids)

    def stream_decoder(self) -> StreamDecoder:
        """A decoder for one sequence that grows; its chunks, joined, are `decode` of it all."""
        if self._table is None:
            self._table = TextTable(self.token_bytes, self.vocab_size)
        return StreamDecoder(self._table, self.decode_errors, self.strip_first_space)

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
