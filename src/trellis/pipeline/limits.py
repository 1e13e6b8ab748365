# SPDX-License-Identifier: Apache-2.0
"""How much one request may ask: the limits of config.pbtxt, checked with the field's name.

`preprocessing` checks what comes through the ensemble, whatever engine is behind it; a Python
engine checks again what may also be sent to `tensorrt_llm` directly.
"""

from dataclasses import dataclass

from trellis.errors import RequestError
from trellis.pipeline.model_settings import ModelSettings


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """`None` is no limit. Checks raise RequestError: what was sent, the most, its parameter."""

    max_tokens_limit: int | None = None
    max_prompts_per_request: int | None = None
    max_words: int | None = None
    max_word_characters: int | None = None
    max_return_sequences: int | None = None

    @classmethod
    def read(cls, settings: ModelSettings) -> "RequestLimits":
        """The parameters of these names. Raises ConfigError for one that is no whole number."""
        return cls(**{name: settings.integer(name) for name in cls.__slots__})

    def check_prompts(self, number: int) -> None:
        """How many prompts a request has."""
        self._check("text_input", number, "prompts in one request", "max_prompts_per_request")

    def check_max_tokens(self, number: int) -> None:
        """How many tokens a prompt asks for."""
        self._check("max_tokens", number, "tokens", "max_tokens_limit")

    def check_sequences(self, client: str, number: int) -> None:
        """How many sequences a prompt asks for, by the field `client`."""
        self._check(client, number, "sequences", "max_return_sequences")

    def check_words(self, client: str, words: list[str]) -> None:
        """The words of a prompt: a thread looks for each of them at every token."""
        self._check(client, len(words), "words", "max_words")
        longest = max(map(len, words), default=0)
        self._check(client, longest, "characters in a word", "max_word_characters")

    def check_stop_token_ids(self, number: int) -> None:
        """How many ids end a prompt's answer: as many as words may."""
        self._check("stop_token_ids", number, "ids", "max_words")

    def _check(self, client: str, number: int, what: str, parameter: str) -> None:
        most = getattr(self, parameter)
        if most is not None and number > most:
            raise RequestError(f"{client}: {number} {what}; send at most {most} ({parameter})")
