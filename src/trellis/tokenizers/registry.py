# SPDX-License-Identifier: Apache-2.0
"""From the name of a tokenizer_type and its options, all strings, to a tokenizer.

A type is a file of the folder tokenizers/: `llama.py` is the type `llama`. It is loaded by its
path, as a file of a user's own is, and never by a name on `sys.path`. Its function
`load(tokenizer_dir, *, option: type = default, ...)` says which options there are and of what
type. Nothing is registered, and nothing else is edited to add one.
"""

import importlib.util
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trellis.data_folders import data_folder
from trellis.panics import Panicked, guarded
from trellis.tokenizers.errors import TokenizerError
from trellis.tokenizers.files import read_end_ids
from trellis.tokenizers.tokenizer import Tokenizer

TYPES = data_folder("tokenizers")
_WORDS = {"true": True, "1": True, "yes": True, "on": True}
_WORDS |= {"false": False, "0": False, "no": False, "off": False}


def known_types(types_folder: Path | None = None) -> list[str]:
    """The tokenizer_types there are, sorted: ['auto', 'gpt2', 'llama', ...]."""
    folder = types_folder or TYPES
    return sorted(path.stem for path in folder.glob("*.py") if not path.name.startswith("_"))


def load(
    tokenizer_type: str,
    tokenizer_dir: str | Path,
    options: Mapping[str, str] | None = None,
    types_folder: Path | None = None,
) -> Tokenizer:
    """The tokenizer of this type from the files in this folder.

    options: the model's config parameters for it, as strings: {"add_bos_token": "true"}. An empty
    value is one not given. Raises TokenizerError for an unknown type or option (listing the known
    ones), a value that cannot be read, and for files that are missing or malformed (naming them).
    The ids of generation_config.json end an answer, whatever the type is. types_folder: where the
    types' files lie; the shipped ones by default.
    """
    known = known_types(types_folder)
    if tokenizer_type not in known:
        raise TokenizerError(
            f"tokenizer_type {tokenizer_type!r} is not known; known are: {', '.join(known)}"
        )
    function = _load_function(tokenizer_type, types_folder or TYPES)
    folder = Path(tokenizer_dir)
    if not folder.is_dir():
        raise TokenizerError(f"tokenizer_dir {str(folder)!r} is not a folder")
    try:
        given = parse_options(tokenizer_type, function, options or {})
        tokenizer = guarded(function, folder, **given)
    except Panicked as error:
        raise TokenizerError(
            f"{folder}: {error}; a file of it is not what the library expects; download it again"
        ) from error
    if not isinstance(tokenizer, Tokenizer):
        raise TokenizerError(
            f"{tokenizer_type}.py: load() must return a Tokenizer of trellis.tokenizers, "
            f"not {type(tokenizer).__name__}"
        )
    listed = read_end_ids(folder, tokenizer.vocab_size)
    if listed:  # whatever the type is: its own chat form's come after those
        tokenizer.more_end_ids = (*listed, *tokenizer.more_end_ids)
    return tokenizer


def _load_function(tokenizer_type: str, types_folder: Path) -> Callable[..., Tokenizer]:
    path = types_folder / f"{tokenizer_type}.py"
    try:
        module = type_module(tokenizer_type, types_folder)
    except Exception as error:  # a user's file may raise anything
        raise TokenizerError(
            f"{path}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
    function: Callable[..., Tokenizer] | None = getattr(module, "load", None)
    if not callable(function):
        raise TokenizerError(
            f"{path}: needs a function load(tokenizer_dir, *, option=default, ...)"
        )
    return function


def type_module(tokenizer_type: str, types_folder: Path | None = None) -> types.ModuleType:
    """The module of a tokenizer_type, loaded from its file once; raises what that raises."""
    file = (types_folder or TYPES) / f"{tokenizer_type}.py"
    return load_file(file, f"trellis_tokenizer_type_{tokenizer_type}")


def load_file(file: Path, prefix: str) -> types.ModuleType:
    """The module of a user's file, loaded by its path once, under a name that begins with `prefix`.

    Raises what that raises.
    """
    key = hash((str(file), file.stat().st_mtime_ns))  # a file that was replaced is loaded again
    name = f"{prefix}_{key & 0xFFFFFFFF:x}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{file}: no Python file")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def parse_options(
    tokenizer_type: str, function: Callable[..., Tokenizer], options: Mapping[str, str]
) -> dict[str, Any]:
    """Strings to the types that `function`'s keyword parameters are annotated with.

    {"add_bos_token": "true", "max_length": "", "n": "3"} -> {"add_bos_token": True, "n": 3}
    """
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    parsed = {}
    for name, text in options.items():
        if not text.strip():
            continue
        if name not in known:
            raise TokenizerError(
                f"tokenizer_type {tokenizer_type!r} has no option {name!r}; "
                f"it has: {', '.join(known) or 'none'}"
            )
        parsed[name] = _parse(name, text.strip(), hints.get(name, str))
    for each in parameters:
        if each.name in known and each.default is each.empty and each.name not in parsed:
            raise TokenizerError(
                f"tokenizer_type {tokenizer_type!r} needs the option {each.name!r}"
            )
    return parsed


def _parse(name: str, text: str, hint: Any) -> Any:
    """One value: bool, int, float, str, Path, a Literal of strings, or any of these or None."""
    if text.startswith("${") and text.endswith("}"):
        raise TokenizerError(f"parameter {name!r} was never filled in: {text}")
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(choice for choice in typing.get_args(hint) if choice is not type(None))
    choices: list[Any] = []
    if hint is bool:
        choices = ["true", "false"]
        if text.lower() in _WORDS:
            return _WORDS[text.lower()]
    elif typing.get_origin(hint) is typing.Literal:
        choices = list(typing.get_args(hint))
        if text in choices:
            return text
    else:
        try:
            return hint(text)
        except ValueError:
            choices = [f"a value of the type {hint.__name__}"]
    raise TokenizerError(f"parameter {name!r} is {text!r}; it can be: {', '.join(choices)}")
