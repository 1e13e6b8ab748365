# SPDX-License-Identifier: Apache-2.0
"""From what TOKENIZER= says to a tokenizer_type: a shipped one, or a file of the user's own."""

from pathlib import Path

from trellis.repository.named_file import NamedFiles
from trellis.tokenizers.registry import known_types


def find_type(tokenizer: str) -> tuple[str, Path | None]:
    """The tokenizer_type, and its file where it is not one of tokenizers/.

    A name is looked for in tokenizers/, then as NAME.py in the current folder. Raises
    NamedFileError for what is in neither.

    >>> find_type("llama")
    ('llama', None)
    """
    return NamedFiles("TOKENIZER", "tokenizer_type", known_types()).find(tokenizer)
