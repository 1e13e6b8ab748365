# SPDX-License-Identifier: Apache-2.0
"""From what TOKENIZER= says to a tokenizer_type: a shipped one, or a file of the user's own."""

import difflib
from pathlib import Path

from trellis.data_folders import data_folder
from trellis.errors import TrellisError

TYPES = data_folder("tokenizers")


class TokenizerTypeError(TrellisError, ValueError):
    """A tokenizer_type that does not exist; the message lists those that do."""


def find_type(tokenizer: str) -> tuple[str, Path | None]:
    """The tokenizer_type, and its file where it is not one of tokenizers/.

    A name is looked for in tokenizers/, then as NAME.py in the current folder. Raises
    TokenizerTypeError for what is in neither.

    >>> find_type("llama")
    ('llama', None)
    """
    if tokenizer.endswith(".py"):
        path = Path(tokenizer)
        if not path.is_file():
            raise TokenizerTypeError(f"TOKENIZER={tokenizer}: no such file")
        if not path.stem.isidentifier():
            raise TokenizerTypeError(
                f"TOKENIZER={tokenizer}: the file's name is the type's; use letters, digits and _"
            )
        return path.stem, path
    known = sorted(p.stem for p in TYPES.glob("*.py") if not p.name.startswith("_"))
    if tokenizer not in known and tokenizer.isidentifier() and Path(f"{tokenizer}.py").is_file():
        return tokenizer, Path(f"{tokenizer}.py")
    if tokenizer not in known:
        near = difflib.get_close_matches(tokenizer, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f", and no {tokenizer}.py in this folder."
        raise TokenizerTypeError(
            f"TOKENIZER={tokenizer}: no such tokenizer_type{hint} Known: {', '.join(known)},"
            " and a file of your own: TOKENIZER=path/to/mine.py"
        )
    return tokenizer, None
