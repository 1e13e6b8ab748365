# SPDX-License-Identifier: Apache-2.0
"""What an assembled model knows of itself: parameters, paths and its tokenizer.

Relative paths are relative to the model's version folder, so that a repository works wherever it
is mounted.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trellis.errors import TrellisError

if TYPE_CHECKING:
    from trellis.parsers import Format
    from trellis.tokenizers import Tokenizer

# Parameters with this prefix are options of the tokenizer_type: `tokenizer.add_bos_token`.
OPTION_PREFIX = "tokenizer."
# Options that keep the names under which TensorRT-LLM's users know them.
PLAIN_OPTIONS = (
    "add_special_tokens",
    "skip_special_tokens",
    "parse_special_tokens",
    "add_bos_token",
    "add_eos_token",
    "extra_ids",
    "trust_remote_code",
)


class ConfigError(TrellisError, ValueError):
    """A parameter of the model's config.pbtxt is missing or wrong; the message names it."""


@dataclass(frozen=True)
class ModelSettings:
    """The `parameters` of a config.pbtxt, and where the model lies."""

    name: str
    folder: Path
    parameters: dict[str, str]
    outputs: dict[str, str]  # name -> data type: {"INPUT_ID": "TYPE_INT32"}
    max_batch_size: int
    decoupled: bool = False  # whether a request may have many responses

    @classmethod
    def read(cls, args: dict[str, str]) -> "ModelSettings":
        """From the `args` that Triton gives `initialize`."""
        config = json.loads(args["model_config"])
        return cls(
            name=args["model_name"],
            folder=Path(args["model_repository"]) / args["model_version"],
            parameters={
                key: value["string_value"].strip() for key, value in config["parameters"].items()
            },
            outputs={output["name"]: output["data_type"] for output in config["output"]},
            max_batch_size=max(int(config.get("max_batch_size", 0)), 1),
            decoupled=bool(config.get("model_transaction_policy", {}).get("decoupled", False)),
        )

    def text(self, key: str, default: str | None = None) -> str:
        """A parameter. Raises ConfigError if it is missing or was never filled in."""
        value = self.parameters.get(key, "")
        if value.startswith("${"):
            raise ConfigError(f"{self.name}: parameter {key} was never filled in: {value}")
        if value:
            return value
        if default is None:
            raise ConfigError(f"{self.name}: parameter {key} is missing; set it in config.pbtxt")
        return default

    def integer(self, key: str) -> int | None:
        """A whole number, or None where the parameter is absent or empty."""
        value = self.text(key, "")
        try:
            return int(value) if value else None
        except ValueError:
            raise ConfigError(
                f"{self.name}: parameter {key} is {value!r}; use a whole number"
            ) from None

    def number(self, key: str) -> float | None:
        """A number, or None where the parameter is absent or empty."""
        value = self.text(key, "")
        try:
            return float(value) if value else None
        except ValueError:
            raise ConfigError(f"{self.name}: parameter {key} is {value!r}; use a number") from None

    def flag(self, key: str, default: bool) -> bool:
        """true or false. Raises ConfigError for anything else."""
        value = self.text(key, str(default)).lower()
        if value not in ("true", "false", "1", "0"):
            raise ConfigError(f"{self.name}: parameter {key} is {value!r}; use true or false")
        return value in ("true", "1")

    def path(self, key: str, default: str | None = None) -> Path:
        """A path; a relative one is looked up in the model's version folder."""
        return self.folder / self.text(key, default)

    @property
    def types_folder(self) -> Path:
        """Where an assembled model has the tokenizer_types."""
        return self.folder / "trellis" / "data" / "tokenizers"

    @property
    def parsers_folder(self) -> Path:
        """Where an assembled model has the formats of tool calls and thoughts."""
        return self.folder / "trellis" / "data" / "parsers"

    def tokenizer_options(self) -> dict[str, str]:
        """The options meant for the tokenizer_type; those left empty keep its defaults."""
        options = {
            key.removeprefix(OPTION_PREFIX): self.text(key, "")
            for key in self.parameters
            if key.startswith(OPTION_PREFIX) or key in PLAIN_OPTIONS
        }
        return {key: value for key, value in options.items() if value}


def load_tokenizer(settings: ModelSettings) -> "Tokenizer":
    """The tokenizer that `tokenizer_type`, `tokenizer_dir` and the options name."""
    from trellis.tokenizers import load

    types = settings.types_folder
    return load(
        settings.text("tokenizer_type"),
        settings.path("tokenizer_dir", "tokenizer"),
        settings.tokenizer_options(),
        types if types.is_dir() else None,
    )


def load_parser(settings: ModelSettings, calls: bool = True) -> "Format | None":
    """The format that the parameter `parser` names, None where it names none.

    `calls`: whether a tool may be called; else it is what tells thoughts from text, if anything.
    Raises ParserError for one that is not there or can't be loaded.
    """
    from trellis.parsers.registry import JOIN, load

    names = settings.text("parser", "")
    if not names:
        return None
    folder = settings.parsers_folder if settings.parsers_folder.is_dir() else None
    if calls:
        return load(names, folder)
    first = load(names.split(JOIN)[0], folder)
    return first if first.reasoning else None
