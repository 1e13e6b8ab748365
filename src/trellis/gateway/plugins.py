# SPDX-License-Identifier: Apache-2.0
"""What the gateway runs of a repository's plugins; see plugin_loading.py for how it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trellis.parsers import Format
    from trellis.pipeline.decode import Detokenizer
    from trellis.pipeline.encode import Preprocessor


@dataclass(frozen=True)
class Formats:
    """What answers of a model are read by; None: they are text."""

    all: "Format | None" = None
    reasoning: "Format | None" = None  # where no tool may be called


NO_FORMATS = Formats()


@dataclass(frozen=True)
class Plugins:
    """What is run here of a repository, or why it is not."""

    texts: "Detokenizer | None" = None  # what `postprocessing` does
    preprocessor: "Preprocessor | None" = None  # what `preprocessing` does
    types: Callable[[str], Any] = str  # numpy's for a data type of Triton's
    encode_bare: Callable[[str], list[int]] | None = None  # the tokenizer's, with a memory
    refusal: type[Exception] = ValueError  # what `preprocessor` raises for a bad request
    why_not: str = ""
    formats: Formats = NO_FORMATS
