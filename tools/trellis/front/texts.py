"""The tokenizer of a repository, for the front: loaded as the models load it."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Ids = list[int]
TYPE = "tokenizer_type"
HEAVY = ("auto",)  # imports transformers: the front stays small


class Decoder(Protocol):
    """A stream's state; see tokenizer_registry.core.StreamDecoder."""

    def push(self, ids: Ids) -> str:
        """The text that these ids complete."""


@dataclass(frozen=True)
class Texts:
    """From ids to text, and how many of an answer's ids count."""

    decode: Callable[[Ids], str]
    new_decoder: Callable[[], Decoder]
    counted: Callable[[Ids, int | None], Ids]  # ids, their number if that was said


def load_texts(config: dict[str, Any], repository: Path) -> Texts | None:
    """The tokenizer of this `postprocessing` (Triton's configuration of it), None if it is heavy.

    Everything comes from the repository, as in the model's own process. Raises what the
    tokenizer_type raises, ImportError where a package is missing.
    """
    if config["parameters"][TYPE]["string_value"] in HEAVY:
        return None
    name = config["name"]
    versions = [path for path in (repository / name).iterdir() if path.name.isdigit()]
    folder = max(versions, key=lambda path: int(path.name))
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from answer_ids import padding_of, without_padding
    from repository import ModelSettings, load_tokenizer

    args = {
        "model_config": json.dumps(config),
        "model_name": name,
        "model_repository": str(repository / name),
        "model_version": folder.name,
    }
    model = ModelSettings.read(args)
    tokenizer = load_tokenizer(model)
    if not model.text("engine", ""):  # a Python engine's ids have no padding
        return Texts(tokenizer.decode, tokenizer.stream_decoder, lambda ids, _: ids)
    padding = padding_of(tokenizer)
    return Texts(
        tokenizer.decode,
        tokenizer.stream_decoder,
        lambda ids, length: without_padding(ids, length, padding),
    )
