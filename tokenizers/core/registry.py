"""From the name of a tokenizer_type and its options, all strings, to a tokenizer.

A type is a file beside this package: `llama.py` is the type `llama`. Its function
`load(tokenizer_dir, *, option: type = default, ...)` says which options there are and of what
type. Nothing is registered, and nothing else is edited to add one.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizer_registry.core.errors import TokenizerError
from tokenizer_registry.core.files import read_end_ids
from tokenizer_registry.core.tokenizer import Tokenizer

_FOLDER = Path(__file__).parent.parent
_WORDS = {"true": True, "1": True, "yes": True, "on": True}
_WORDS |= {"false": False, "0": False, "no": False, "off": False}


def known_types() -> list[str]:
    """The tokenizer_types there are, sorted: ['auto', 'gpt2', 'llama', ...]."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if not path.name.startswith("_"))


def load(
    tokenizer_type: str, tokenizer_dir: str | Path, options: Mapping[str, str] | None = None
) -> Tokenizer:
    """The tokenizer of this type from the files in this folder.

    options: the model's config parameters for it, as strings: {"add_bos_token": "true"}. An empty
    value is one not given. Raises TokenizerError for an unknown type or option (listing the known
    ones), a value that cannot be read, and for files that are missing or malformed (naming them).
    The ids of generation_config.json end an answer, whatever the type is.
    """
    if tokenizer_type not in known_types():
        raise TokenizerError(
            f"tokenizer_type {tokenizer_type!r} is not known; known are: {', '.join(known_types())}"
        )
    function = _load_function(tokenizer_type)
    folder = Path(tokenizer_dir)
    if not folder.is_dir():
        raise TokenizerError(f"tokenizer_dir {str(folder)!r} is not a folder")
    tokenizer = function(folder, **parse_options(tokenizer_type, function, options or {}))
    if not isinstance(tokenizer, Tokenizer):
        raise TokenizerError(
            f"{tokenizer_type}.py: load() must return a Tokenizer of tokenizer_registry.core, "
            f"not {type(tokenizer).__name__}"
        )
    listed = read_end_ids(folder, tokenizer.vocab_size)
    if listed:  # whatever the type is: its own chat form's come after those
        tokenizer.more_end_ids = (*listed, *tokenizer.more_end_ids)
    return tokenizer


def _load_function(tokenizer_type: str) -> Callable[..., Tokenizer]:
    path = _FOLDER / f"{tokenizer_type}.py"
    try:
        module = importlib.import_module(f"tokenizer_registry.{tokenizer_type}")
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
