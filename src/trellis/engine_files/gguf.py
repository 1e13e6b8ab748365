# SPDX-License-Identifier: Apache-2.0
"""The part of a GGUF file's metadata that serving needs, read by the `gguf` library."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from trellis.errors import TrellisError

T = TypeVar("T")


class GgufError(TrellisError, ValueError):
    """A file that is no readable GGUF, or lacks a key; the message names both."""


@dataclass(frozen=True)
class GgufMetadata:
    """Sizes, vocabulary and special ids of one GGUF file."""

    architecture: str
    context_length: int
    model: str  # tokenizer.ggml.model: "gpt2" is byte-level BPE, "llama" SentencePiece
    pre: str
    tokens: list[str]
    token_types: list[int]
    merges: list[str]
    bos_id: int | None
    eos_id: int | None
    eot_id: int | None  # ends a turn
    pad_id: int | None
    unk_id: int | None
    add_bos_token: bool
    chat_template: str | None

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ends of a text and of a turn, where these are two; else ()."""
        if self.eot_id is None or self.eot_id == self.eos_id:
            return ()
        return (self.eot_id,) if self.eos_id is None else (self.eos_id, self.eot_id)


def read_gguf(path: Path) -> GgufMetadata:
    """Read the metadata. Raises GgufError naming the file and what is wrong with it."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
    except Exception as error:
        raise GgufError(f"{path}: not a readable GGUF file: {error}") from error

    def get(key: str, kind: type[T], default: T | None = None) -> Any:
        value = fields[key].contents() if key in fields else default
        if value is not None and (type(value) is not kind):
            raise GgufError(
                f"{path}: {key} is of type {type(value).__name__}; a file with one of"
                f" {kind.__name__} is needed"
            )
        return value

    def need(key: str, kind: type[T]) -> Any:
        if key not in fields:
            raise GgufError(f"{path}: has no {key}")
        return get(key, kind)

    architecture = need("general.architecture", str)
    return GgufMetadata(
        architecture=architecture,
        context_length=need(f"{architecture}.context_length", int),
        model=need("tokenizer.ggml.model", str),
        pre=get("tokenizer.ggml.pre", str, "default"),
        tokens=need("tokenizer.ggml.tokens", list),
        token_types=get("tokenizer.ggml.token_type", list, []),
        merges=get("tokenizer.ggml.merges", list, []),
        bos_id=get("tokenizer.ggml.bos_token_id", int),
        eos_id=get("tokenizer.ggml.eos_token_id", int),
        eot_id=get("tokenizer.ggml.eot_token_id", int),
        pad_id=get("tokenizer.ggml.padding_token_id", int),
        unk_id=get("tokenizer.ggml.unknown_token_id", int),
        add_bos_token=bool(get("tokenizer.ggml.add_bos_token", bool, False)),
        chat_template=get("tokenizer.chat_template", str),
    )
