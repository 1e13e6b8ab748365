# SPDX-License-Identifier: Apache-2.0
"""Bad words for the OpenVINO engine: the pipeline's structured output, told what must not appear.

A grammar (see `words_grammar.py`) is compiled between two steps, for which all others wait, the
first time that its list is asked for, and kept for good: hence the bound. An end_id other than the
model's own leaves a way around it, the model's own end token, after which the library lets
everything pass.
"""

from trellis.engine_host.engines.words_grammar import check_words, words_grammar
from trellis.errors import RequestError

MAX_LISTS = 250  # different lists, of 0.3 MB for a word and 1.2 MB for the longest list


class BadWords:
    """The lists that a pipeline was given so far, and their grammars."""

    def __init__(self) -> None:
        self._lists: set[frozenset[str]] = set()

    def refuse(self, words: tuple[str, ...]) -> None:
        """Raise RequestError for words that cannot be kept out, and for lists beyond the bounds."""
        check_words(words, "openvino")
        if len(self._lists) >= MAX_LISTS and frozenset(words) not in self._lists:
            raise RequestError(
                f"bad_words: this engine (openvino) keeps every list, and has {MAX_LISTS}; send"
                " one of those"
            )

    def given(self, words: tuple[str, ...]) -> None:
        """Note a list that the engine has now."""
        self._lists.add(frozenset(words))

    def grammar(self, words: tuple[str, ...], ends: bool) -> str:
        """The grammar for a list that was not refused; `ends`: whether the end token may come."""
        self.given(words)
        return words_grammar(words, ends)
