# SPDX-License-Identifier: Apache-2.0
"""From the ids of an answer to its text: all of `postprocessing` but Triton's part.

`triton_models/postprocessing.py` runs it between Triton's tensors, the HTTP gateway between two
JSON objects, so that both ways are the same code. No numpy here: ids are lists, texts are strings.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from trellis.panics import guarded
from trellis.pipeline.answer_ids import padding_of, without_padding
from trellis.pipeline.hooks import AnswerHook, HookError, Hooks

if TYPE_CHECKING:
    from trellis.tokenizers import Tokenizer

Padding = frozenset[int | None]


class Decoder(Protocol):
    """Ids in, text out; see trellis.tokenizers.StreamDecoder."""

    def push(self, ids: list[int]) -> str:
        """The text that these ids complete."""

    def end(self) -> str:
        """What is left at the end of the stream."""


class SequenceText:
    """The text of one sequence of an answer, chunk by chunk. Made by `Detokenizer.sequence`."""

    __slots__ = ("_decoder",)

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def add(self, ids: list[int], ended: bool, cut: int = 0) -> str:
        """The text that these ids add; `ended` with the last of them.

        `cut`: how many characters at its end a stop word takes. Raises what a tokenizer_type does.
        """
        text = guarded(self._decoder.push, ids)
        if ended:
            text += guarded(self._decoder.end)
        return text[:-cut] if cut else text


class HookedText(SequenceText):
    """The same, through a user's hook: see hooks.py."""

    __slots__ = ("_hook",)

    def __init__(self, decoder: Decoder, hook: AnswerHook) -> None:
        super().__init__(decoder)
        self._hook = hook

    def add(self, ids: list[int], ended: bool, cut: int = 0) -> str:
        """What the hook makes of the text that these ids add. Raises HookError, too."""
        text = self._hook.push(super().add(ids, ended, cut))
        return text + self._hook.end() if ended else text


class Detokenizer:
    """A model's answers, from ids to text: whole, or a sequence chunk by chunk.

    >>> detokenizer = Detokenizer.of(tokenizer)
    >>> detokenizer.whole([22557, 1526])
    'Hello world'
    >>> sequence = detokenizer.sequence()
    >>> sequence.add([22557], ended=False), sequence.add([1526], ended=True)
    ('Hello', ' world')
    """

    def __init__(
        self,
        decode: Callable[..., str],
        new_decoder: Callable[..., Decoder],
        padding: Padding | None = None,
        new_answer: Callable[[], AnswerHook] | None = None,
        marked_decoder: Callable[[frozenset[str]], Decoder] | None = None,
    ) -> None:
        """`decode`, `new_decoder`: a tokenizer's `decode` and `stream_decoder`.

        `padding`: what fills a row where no length is said; None: rows have no padding.
        `new_answer`: makes the hook of a sequence; None: texts stay as they are.
        `marked_decoder`: the tokenizer's.
        """
        self.decode = decode
        self._new_decoder = new_decoder
        self._padding = padding
        self._new_answer = new_answer
        self._marked_decoder = marked_decoder

    @classmethod
    def of(
        cls, tokenizer: "Tokenizer", padded: bool = False, hooks: Hooks | None = None
    ) -> "Detokenizer":
        """By a tokenizer. `padded`: whether padding may follow the ids, as with the C++ backend."""
        padding = padding_of(tokenizer) if padded else None
        new_answer = None if hooks is None else hooks.new_answer
        return cls(
            tokenizer.decode,
            tokenizer.stream_decoder,
            padding,
            new_answer,
            tokenizer.marked_decoder,
        )

    def counted(self, ids: list[int], length: int | None) -> list[int]:
        """The ids of a row that are an answer's; `length`: their number, if it is said."""
        return ids if self._padding is None else without_padding(ids, length, self._padding)

    def whole(self, ids: list[int], skip_special_tokens: bool | None = None, cut: int = 0) -> str:
        """The text of a sequence that came in one piece.

        `skip_special_tokens`: whether it leaves them out; None: as the tokenizer was loaded.
        `cut`: how many characters at its end a stop word takes. Raises what a tokenizer_type does,
        and HookError.
        """
        if skip_special_tokens is None:
            text = guarded(self.decode, ids)
        else:
            text = guarded(self.decode, ids, skip_special_tokens)
        if cut:
            text = text[:-cut]
        if self._new_answer is None:
            return text
        hook = self._new_answer()
        return hook.push(text) + hook.end()

    def sequence(self, skip_special_tokens: bool | None = None) -> SequenceText:
        """The text of a sequence that comes in chunks; `skip_special_tokens` as in `whole`."""
        asked = () if skip_special_tokens is None else (skip_special_tokens,)
        return self._text(guarded(self._new_decoder, *asked))

    def marked(self, shown: frozenset[str]) -> SequenceText:
        """The same, of special tokens with those whose letters are `shown` and no others."""
        assert self._marked_decoder is not None, "made without a tokenizer"
        return self._text(guarded(self._marked_decoder, shown))

    def _text(self, decoder: Decoder) -> SequenceText:
        if self._new_answer is None:
            return SequenceText(decoder)
        return HookedText(decoder, self._new_answer())


def failure(error: Exception) -> str:
    """What a client is told where its answer's text could not be made."""
    if isinstance(error, HookError):  # it says by itself what failed
        return str(error)
    return f"the tokens could not be decoded: {error}"
