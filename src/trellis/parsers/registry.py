# SPDX-License-Identifier: Apache-2.0
"""From the name of a format, or two joined by `+`, to the format; from a chat template to a name.

A format is a file of the folder parsers/: `hermes.py` is the format `hermes`. It is loaded by its
path, as a tokenizer_type is. Nothing is registered, and nothing else is edited to add one.
"""

import difflib
from collections.abc import Callable
from pathlib import Path

from trellis.data_folders import data_folder
from trellis.errors import TrellisError
from trellis.parsers.chain import chain
from trellis.parsers.format import Format
from trellis.tokenizers.registry import known_types, load_file

FORMATS = data_folder("parsers")
JOIN = "+"
# Formats of calls whose templates have something of another's in them come before that other one;
# those that are not named here come last, by name.
ORDER = (
    "harmony",
    "deepseek_v3",
    "glm",
    "qwen3_coder",
    "mistral",
    "llama4_pythonic",
    "llama3_json",
    "hermes",
)


class ParserError(TrellisError, ValueError):
    """A format that does not exist or can't be loaded; the message says what to do."""


def known_formats(folder: Path | None = None) -> list[str]:
    """The formats there are, sorted: ['hermes', 'think', ...]."""
    return known_types(folder or FORMATS)


def load(names: str, folder: Path | None = None) -> Format:
    """The format of this name; of two joined by `+`, that of reasoning in front of that of calls.

    A name may be the path of a file of the user's own, `path/to/mine.py`. Raises ParserError for
    an unknown name (with the nearest), a file that can't be loaded, and two that can't be joined.
    folder: where the formats' files lie; the shipped ones by default.
    """
    if Path(names).is_file():  # whose path may have the sign in it
        return _load_file(Path(names))
    parts = [_load_one(name, folder or FORMATS) for name in names.split(JOIN)]
    if len(parts) == 1:
        return parts[0]
    if len(parts) > 2 or parts[0].calls or parts[1].reasoning:
        raise ParserError(
            f"PARSER={names}: only a format of reasoning alone and one of calls alone can be "
            f"joined, in this order: think{JOIN}hermes"
        )
    return chain(*parts)


def detect(source: str, folder: Path | None = None) -> str:
    """The name of the format that a model of this chat template uses; "" if none is known.

    Of several formats of calls that recognise it, the first in ORDER; a format of reasoning goes
    in front, unless that one tells reasoning itself. Raises ParserError for a file that can't be
    loaded.
    """
    formats = [_load_one(name, folder or FORMATS) for name in known_formats(folder)]
    found = [each for each in formats if each.recognises(source)]
    calls = sorted((each for each in found if each.calls), key=_place)[:1]
    thoughts = [each for each in found if not each.calls][:1]
    if calls and calls[0].reasoning:
        thoughts = []
    return JOIN.join(each.name for each in (*thoughts, *calls))


def _place(found: Format) -> tuple[int, str]:
    return ORDER.index(found.name) if found.name in ORDER else len(ORDER), found.name


def _load_one(name: str, folder: Path) -> Format:
    if name.endswith(".py"):
        return _load_file(Path(name))
    known = known_formats(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ParserError(
            f"PARSER={name}: no such format; {hint}known: {', '.join(known)}, none, two joined by "
            f"{JOIN} (think{JOIN}hermes), and a file of your own: PARSER=path/to/mine.py"
        )
    return _load_file(folder / f"{name}.py")


def _load_file(path: Path) -> Format:
    try:
        module = load_file(path, f"trellis_parser_{path.stem}")
        function: Callable[[], Format] | None = getattr(module, "load", None)
        loaded = function() if callable(function) else None
    except Exception as error:  # a user's file may raise anything
        raise ParserError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(loaded, Format):
        raise ParserError(f"{path}: needs a function load() that returns a trellis.parsers.Format")
    if loaded.name != path.stem:
        raise ParserError(f"{path}: its format must be named {path.stem!r}, not {loaded.name!r}")
    return loaded
