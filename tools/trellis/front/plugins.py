"""The plugins of a repository, run in the front: its tokenizer, and what `preprocessing` reads.

Code, tokenizer and settings come from the repository, as in the models' own processes.
"""

import contextlib
import filecmp
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trellis.front.stood_for import changed

if TYPE_CHECKING:
    import numpy as np

Ids = list[int]
Config = Mapping[str, Any]
TYPE = "tokenizer_type"
AUTO = "auto"
REGISTRY = "tokenizer_registry"


class Decoder(Protocol):
    """A stream's state; see tokenizer_registry.core.StreamDecoder."""

    def push(self, ids: Ids) -> str:
        """The text that these ids complete."""

    def end(self) -> str:
        """What is left at the end of the stream."""


@dataclass(frozen=True)
class Texts:
    """From ids to text, and how many of an answer's ids count."""

    decode: Callable[..., str]  # ids, whether special tokens have no text if that was said
    new_decoder: Callable[..., Decoder]  # whether they have none, if that was said
    counted: Callable[[Ids, int | None], Ids]  # ids, their number if that was said


class Preprocessor(Protocol):
    """See model_repo_src/preprocessing/1/preprocessor.py."""

    thread_safe: bool

    def read(self, arrays: "Mapping[str, np.ndarray]", request_id: Callable[[], str]) -> Any:
        """One request, checked."""

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """Its texts as ids."""

    def outputs(self, prompts: Any, rows: Sequence[Any]) -> Any:
        """The engine's tensors, by the outputs of `preprocessing`."""


@dataclass(frozen=True)
class Plugins:
    """What is run here of a repository, or why it is not."""

    texts: Texts | None = None  # what `postprocessing` does
    preprocessor: Preprocessor | None = None  # what `preprocessing` does
    types: Callable[[str], Any] = str  # numpy's for a data type of Triton's
    refusal: type[Exception] = ValueError  # what `preprocessor` raises for a bad request
    why_not: str = ""


def load_plugins(before: Config, last: Config, repository: Path) -> Plugins:
    """The plugins of `preprocessing` and `postprocessing`, by Triton's configurations of them.

    Raises what the tokenizer_type raises, ImportError where a package is missing.
    """
    reading, writing = _Model(before, repository), _Model(last, repository)
    if any(model["parameters"][TYPE]["string_value"] == AUTO for model in (before, last)):
        with importing_from(writing.folder):
            if _needs_transformers(writing):
                return Plugins(why_not="its tokenizer is one of transformers")
    if files := changed("postprocessing", writing.folder):
        return Plugins(why_not=f"{', '.join(files)}: not as the front knows it")
    with importing_from(writing.folder):
        from answer_ids import padding_of, without_padding
        from repository import ModelSettings, load_tokenizer

        settings = ModelSettings.read(writing.args)
        tokenizer = load_tokenizer(settings)
    counted: Callable[[Ids, int | None], Ids] = lambda ids, _: ids  # noqa: E731
    if settings.text("engine", ""):  # a Python engine's ids have no padding
        padding = padding_of(tokenizer)
        counted = lambda ids, length: without_padding(ids, length, padding)  # noqa: E731
    texts = Texts(tokenizer.decode, tokenizer.stream_decoder, counted)
    if files := changed("preprocessing", reading.folder):
        return Plugins(texts, why_not=f"{', '.join(files)}: not as the front knows it")
    try:
        return replace(_reading(reading, settings, tokenizer), texts=texts)
    except Exception as error:  # whatever is raised there: texts can be made all the same
        return Plugins(texts, why_not=str(error))


def _reading(model: "_Model", last: Any, tokenizer: Any) -> Plugins:
    """`preprocessing`; `tokenizer` is that of `last`, the other model's ModelSettings."""
    with importing_from(model.folder):
        from preprocessor import Preprocessor as Reading
        from prompts import BadRequest
        from repository import ModelSettings
        from tensor_types import numpy_type

        settings = ModelSettings.read(model.args)
        shared = tokenizer if _same_tokenizer(settings, last) else None
        reading = Reading(settings, shared)
        return Plugins(preprocessor=reading, types=numpy_type, refusal=BadRequest)


def _needs_transformers(model: "_Model") -> bool:
    """Whether the type `auto` imports transformers for this tokenizer: the front stays small."""
    from repository import ModelSettings

    from tokenizer_registry.auto import needs_transformers

    folder = ModelSettings.read(model.args).path("tokenizer_dir", "tokenizer")
    return bool(needs_transformers(folder))


@contextlib.contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Import modules from a model's version folder, whatever else has modules of these names.

    Those that were imported from elsewhere stay what they are for who imports them later.
    """
    names = {path.stem for path in folder.iterdir() if path.is_dir() or path.suffix == ".py"}
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if _top(name) in names}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        again = set(map(_top, others))  # whole packages: theirs and these do not mix
        for name in [name for name in sys.modules if _top(name) in again]:
            del sys.modules[name]
        sys.modules.update(others)
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for what is imported when it is first used


def _top(name: str) -> str:
    return name.partition(".")[0]


class _Model:
    """Where a Python model of the repository lies, and what Triton would tell it."""

    def __init__(self, config: Config, repository: Path) -> None:
        name = config["name"]
        versions = [path for path in (repository / name).iterdir() if path.name.isdigit()]
        self.folder = max(versions, key=lambda path: int(path.name))
        self.args = {
            "model_config": json.dumps(config),
            "model_name": name,
            "model_repository": str(repository / name),
            "model_version": self.folder.name,
        }


def _same_tokenizer(one: Any, other: Any) -> bool:
    """Whether two ModelSettings name the same tokenizer: then it is in memory once."""
    named = [(m.text(TYPE), m.tokenizer_options()) for m in (one, other)]
    folders = [(m.path("tokenizer_dir", "tokenizer"), m.folder / REGISTRY) for m in (one, other)]
    return named[0] == named[1] and all(map(_same_files, *folders))


def _same_files(one: Path, other: Path) -> bool:
    names, others = (
        {file.relative_to(folder) for file in folder.rglob("*") if _counts(file)}
        for folder in (one, other)
    )
    return names == others and all(
        (one / name).samefile(other / name) or filecmp.cmp(one / name, other / name, shallow=False)
        for name in names
    )


def _counts(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc"
