# SPDX-License-Identifier: Apache-2.0
"""Reading a tokenizer's folder, with errors that name the file and what is wrong with it.

llama-tokenizer/
  tokenizer.json | tokenizer.model | vocab.json + merges.txt     the vocabulary
  tokenizer_config.json, special_tokens_map.json, added_tokens.json   special tokens, options
  chat_template.jinja, additional_chat_templates/*.jinja         the chat template, and others
  chat_template.json                                             a processor's chat template
  generation_config.json                                         the ids that end an answer
"""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trellis.bounded_files import VOCABULARY_BYTES, FileRefused, read_bounded
from trellis.tokenizers.chat import ChatTemplate, Template
from trellis.tokenizers.errors import TokenizerError

TEMPLATE_BYTES = 1 << 24  # the longest published has 80 KB
_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass
class AddedToken:
    """A token beside the vocabulary's own, found in the text before anything else is."""

    content: str
    id: int | None = None
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False


@dataclass
class Config:
    """What the small JSON files of a tokenizer folder say."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    """tokenizer_config.json, as it is."""
    roles: dict[str, str] = field(default_factory=dict)
    """{"bos_token": "<s>", ...}: which string plays which part."""
    named: dict[str, str] = field(default_factory=dict)
    """{"bos_token": "<s>", "image_token": "<img>", ...}: all that a chat template may name."""
    others: list[str] = field(default_factory=list)
    """Special tokens that play no part: additional_special_tokens."""
    added: list[AddedToken] = field(default_factory=list)
    """Added tokens with their ids, by id."""

    def flag(self, name: str, option: bool | None, default: bool) -> bool:
        """An option that falls back on tokenizer_config.json, then on the type's default."""
        if option is not None:
            return option
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            path = self.folder / "tokenizer_config.json"
            raise TokenizerError(f"{path}: {name} must be true or false: {value!r}")
        return value

    def chat_template(self, roles: dict[str, str]) -> ChatTemplate | None:
        """The folder's chat template, or None.

        roles: the special tokens that the type knows, {"bos_token": "<s>", ...}; the template
        may name these and all that the files name.
        """
        if not self.templates:
            return None
        return ChatTemplate.jinja(self.templates, {**roles, **self.named})

    @cached_property
    def templates(self) -> "dict[str, Template]":
        """The folder's chat templates by name; see read_templates."""
        return read_templates(self.folder, self.values)


def read_config(folder: Path) -> Config:
    """The small files of a folder, none of which must exist."""
    config = Config(folder)
    names = ["special_tokens_map.json", "tokenizer_config.json"]
    values = {name: _read_object(folder / name) for name in names}
    config.values = values["tokenizer_config.json"]
    if "added_tokens_decoder" not in config.values:
        names.reverse()  # as in transformers: the special tokens map then has the last word
    for name in names:
        for role in _ROLES:
            content = _content(folder / name, role, values[name].get(role))
            if content is not None:
                config.roles[role] = content
        for key in ("additional_special_tokens", "extra_special_tokens"):
            listed = values[name].get(key) or []
            listed = list(listed.values()) if isinstance(listed, dict) else listed
            if not isinstance(listed, list):
                raise TokenizerError(f"{folder / name}: {key} must be a list: {listed!r}")
            contents = [_content(folder / name, key, each) for each in listed]
            config.others += [c for c in contents if c and c not in config.others]
        config.named |= _named_tokens(folder / name, values[name])
    config.added = _added_tokens(config)
    return config


def _named_tokens(path: Path, values: dict[str, Any]) -> dict[str, str]:
    """The special tokens of a file by name: bos_token, image_token, and a model's own."""
    named = {
        key: value
        for key, value in values.items()
        if key.endswith("_token") and isinstance(value, (str, dict))
    }
    extra = values.get("extra_special_tokens")
    named |= extra if isinstance(extra, dict) else {}
    contents = {key: _content(path, key, value) for key, value in named.items()}
    return {key: content for key, content in contents.items() if content is not None}


def read_templates(folder: Path, values: dict[str, Any]) -> dict[str, Template]:
    """The chat templates of a folder by name; the usual one is `default`.

    As in transformers, files of jinja go before tokenizer_config.json, all of them; a processor's
    chat_template.json counts where there is no other.

    Args:
        values: tokenizer_config.json.
    """
    paths = {"default": folder / "chat_template.jinja"}
    additional = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    paths |= {path.name.removesuffix(".jinja"): path for path in additional}
    found = {
        name: Template(read_text(path, TEMPLATE_BYTES), str(path))
        for name, path in paths.items()
        if path.is_file()
    }
    legacy = folder / "chat_template.json"
    if not found:
        found = _templates(folder / "tokenizer_config.json", values.get("chat_template"))
    return found or _templates(legacy, _read_object(legacy).get("chat_template"))


def _templates(path: Path, value: Any) -> dict[str, Template]:
    """chat_template of a JSON file: a string, or several by name."""
    if value is None:
        return {}
    if isinstance(value, str):
        value = {"default": value}
    try:
        if isinstance(value, list):
            value = {item["name"]: item["template"] for item in value}
        if not all(isinstance(text, str) for pair in value.items() for text in pair):
            raise TypeError("a name or a template is no string")
    except (AttributeError, KeyError, TypeError) as error:
        raise TokenizerError(
            f"{path}: chat_template must be a string, or a list of objects with name and "
            f"template: {type(error).__name__}: {error}"
        ) from error
    return {name: Template(source, str(path)) for name, source in value.items()}


def read_end_ids(folder: Path, vocab_size: int) -> tuple[int, ...]:
    """`eos_token_id` of generation_config.json, one id or a list; () without the file or the field.

    Raises TokenizerError for anything else, and for an id outside the vocabulary.
    """
    path = folder / "generation_config.json"
    value = _read_object(path).get("eos_token_id")
    listed = value if isinstance(value, list) else [] if value is None else [value]
    for token in listed:
        if isinstance(token, bool) or not isinstance(token, int):
            raise TokenizerError(
                f"{path}: eos_token_id must be an integer or a list of integers: {value!r}"
            )
        if not 0 <= token < vocab_size:
            raise TokenizerError(
                f"{path}: eos_token_id {token} is not in the vocabulary, which has {vocab_size} ids"
            )
    return tuple(listed)


def _added_tokens(config: Config) -> list[AddedToken]:
    path = config.folder / "added_tokens.json"
    special = {*config.roles.values(), *config.others}
    by_id: dict[int, AddedToken] = {}
    for content, token in _read_object(path).items():
        if type(token) is not int:
            raise TokenizerError(f"{path}: the id of {content!r} must be an integer: {token!r}")
        by_id[token] = AddedToken(content, token, special=content in special)
    path = config.folder / "tokenizer_config.json"
    decoder = config.values.get("added_tokens_decoder") or {}
    try:
        for token, entry in decoder.items():
            fields = {key: entry[key] for key in AddedToken.__annotations__ if key in entry}
            by_id[int(token)] = _checked(AddedToken(**{**fields, "id": int(token)}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"{path}: added_tokens_decoder: {error}") from error
    return [by_id[token] for token in sorted(by_id)]


def _checked(token: AddedToken) -> AddedToken:
    """The token itself. Raises TypeError for a value of another type."""
    if not isinstance(token.content, str):
        raise TypeError(f"content of {token.id} must be a string: {token.content!r}")
    for name in ("special", "lstrip", "rstrip", "normalized", "single_word"):
        if not isinstance(getattr(token, name), bool):
            raise TypeError(f"{name} of {token.id} must be true or false: {getattr(token, name)!r}")
    return token


def _content(path: Path, role: str, value: Any) -> str | None:
    """A special token, given as a string or as an object with a content."""
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise TokenizerError(f"{path}: {role} must be a string: {value!r}")
    return value


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, {} where there is no such file."""
    value = read_json(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: must hold a JSON object, not a {type(value).__name__}")
    return value


def read_json(path: Path) -> Any:
    """The JSON in a file. Raises TokenizerError with the line and column of what is wrong."""
    text = read_text(path)
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # half of a surrogate pair is no text to any library
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError as error:
        raise TokenizerError(f"{path}: has half of a surrogate pair, which is no text") from error
    except RecursionError as error:
        raise TokenizerError(f"{path}: not JSON that is read: it is nested too deeply") from error
    except ValueError as error:
        raise TokenizerError(f"{path}: not JSON: {error}{guess(text.encode())}") from error


def read_text(path: Path, most: int = VOCABULARY_BYTES) -> str:
    """The UTF-8 text in a file of so many bytes at most."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: not UTF-8 text: {error}") from error


def read_bytes(path: Path, most: int = VOCABULARY_BYTES) -> bytes:
    """The bytes in a file, which must exist, not be empty, and not be larger than `most`."""
    try:
        data = read_bounded(path, most)
    except FileRefused as error:
        raise TokenizerError(str(error)) from error
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise TokenizerError(f"{path}: is empty")
    return data


def first_of(folder: Path, *choices: tuple[str, ...]) -> tuple[Path, ...]:
    """The files of the first choice that is there whole.

    first_of(dir, ("tokenizer.json",), ("vocab.json", "merges.txt")). Raises TokenizerError that
    lists the choices, and which file of an incomplete one is missing.
    """
    for names in choices:
        paths = tuple(folder / name for name in names)
        there = [path for path in paths if path.is_file()]
        if len(there) == len(paths):
            return paths
        if there:
            missing = next(path for path in paths if not path.is_file())
            raise TokenizerError(f"{missing}: is missing ({there[0].name} needs it)")
    wanted = ", or ".join(" with ".join(names) for names in choices)
    raise TokenizerError(f"{folder}: has no tokenizer of this type: needs {wanted}")


def guess(data: bytes) -> str:
    """What a file that is not what it should be may be: a hint for an error, or ''."""
    head = data[:200].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return " (it is an HTML page: was a login or error page downloaded in its place?)"
    if head.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer: fetch the file itself with `git lfs pull`)"
    return ""
