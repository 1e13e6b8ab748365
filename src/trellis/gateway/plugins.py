# SPDX-License-Identifier: Apache-2.0
"""What the gateway runs of a repository's plugins; see plugin_loading.py for how it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trellis.pipeline.encode import Preprocessor
    from trellis.tokenizers import StreamDecoder

Ids = list[int]


@dataclass(frozen=True)
class Texts:
    """From ids to text, and how many of an answer's ids count."""

    decode: Callable[..., str]  # ids, whether special tokens have no text if that was said
    new_decoder: "Callable[..., StreamDecoder]"  # whether they have none, if that was said
    counted: Callable[[Ids, int | None], Ids]  # ids, their number if that was said


@dataclass(frozen=True)
class Plugins:
    """What is run here of a repository, or why it is not."""

    texts: Texts | None = None  # what `postprocessing` does
    preprocessor: "Preprocessor | None" = None  # what `preprocessing` does
    types: Callable[[str], Any] = str  # numpy's for a data type of Triton's
    refusal: type[Exception] = ValueError  # what `preprocessor` raises for a bad request
    why_not: str = ""
