# SPDX-License-Identifier: Apache-2.0
"""`engine.yaml`, beside the model: arguments of an engine's library that have no setting of ours.

What the repository decides cannot stand there, and what the library does not have is rejected.
"""

import difflib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

ARGUMENTS_FILE = "engine.yaml"


def read_arguments(
    file: Path, known: Collection[str], ours: Mapping[str, str], library: str
) -> dict[str, Any]:
    """The arguments in a file, {} without one.

    Args:
        known: what the library has.
        ours: of that, what something else decides, and what does.
        library: its name, for messages.

    Raises ValueError for a key that cannot be there.
    """
    if not file.is_file():
        return {}
    try:
        given = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{ARGUMENTS_FILE}: not YAML: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{ARGUMENTS_FILE}: not a table of the library's arguments")
    check_names(given, known, ours, library)
    return given


def given_arguments(folder: Path) -> dict[str, Any]:
    """What a folder's file says, unchecked; {} where there is none, or where it cannot be read."""
    try:
        given = yaml.safe_load((folder / ARGUMENTS_FILE).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # `read_arguments` says what is wrong in it
    return given if isinstance(given, dict) else {}


def check_names(
    given: Mapping[str, Any],
    known: Collection[str],
    ours: Mapping[str, str],
    library: str,
    table: str = "",
) -> None:
    """Raise ValueError for a key that cannot be there; `table` is the one that the keys are in."""
    for key in given:
        name = f"{table}{str(key)[:64]}"
        if key in ours:
            raise ValueError(f"{ARGUMENTS_FILE}: {name} is set by {ours[key]}; leave it out")
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{ARGUMENTS_FILE}: {library} has no argument {name}{hint}")


def declared_dtype(folder: Path) -> str:
    """The checkpoint's own; a library's `auto` makes 16 bits of a checkpoint of 32."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", {})
    named = (table.get(key) for table in (config, text) for key in ("dtype", "torch_dtype"))
    return str(next(filter(None, named), "auto"))
