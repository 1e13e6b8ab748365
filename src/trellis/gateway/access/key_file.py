# SPDX-License-Identifier: Apache-2.0
"""The file of API keys: names, each with the hash of a key and the limits of who has it.

    keys:
      alice:
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        requests_per_minute: 60

A key is 256 random bits, so one round of SHA-256 is enough: there is nothing to guess.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trellis.bounded_files import read_bounded
from trellis.errors import TrellisError
from trellis.files import write_atomically

MOST_KEYS = 1000  # each is compared with every request's
MAX_FILE = 1 << 20  # bytes
KEY_BYTES = 32
PREFIX = "trellis-"  # of keys that are made here, so that scanners of leaks know them
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
DIGEST = r"^[0-9a-f]{64}$"

Most = Annotated[int, Field(ge=0, le=1 << 53)]


class KeyFileError(TrellisError, ValueError):
    """A file of keys that cannot be used; the message names the file, the key and the field."""


class KeyLimits(BaseModel):
    """What the requests with one key may take; 0: no limit."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    requests_in_flight: Most = 0
    tokens_in_flight: Most = 0
    requests_per_minute: Most = 0
    tokens_per_minute: Most = 0


class KeyEntry(KeyLimits):
    """One key of the file."""

    sha256: Annotated[str, Field(pattern=DIGEST)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    keys: Annotated[dict[str, KeyEntry], Field(max_length=MOST_KEYS)]


def new_key() -> str:
    """A key that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest(key: str) -> str:
    """The hash that the file has of a key.

    >>> digest("test")[:8]
    '9f86d081'
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def read_keys(path: Path) -> dict[str, KeyEntry]:
    """The keys of a file by name. Raises KeyFileError."""
    try:
        found = yaml.safe_load(read_bounded(path, MAX_FILE))
    except (OSError, TrellisError) as error:
        raise KeyFileError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise KeyFileError(f"{path}{line}: no YAML or JSON; make it by trellis keys add") from None
    try:
        keys = _File.model_validate(found).keys
    except ValidationError as error:
        raise KeyFileError(f"{path}: {_first(error)}") from None
    _check(path, keys)
    return keys


def write_keys(path: Path, keys: Mapping[str, KeyEntry]) -> None:
    """Write the file whole or not at all, for its owner alone. Raises OSError."""
    _check(path, keys)
    shown = {name: entry.model_dump(exclude_defaults=True) for name, entry in keys.items()}
    text = yaml.safe_dump({"keys": shown}, sort_keys=False)
    write_atomically(path, text, mode=0o600)


def _check(path: Path, keys: Mapping[str, KeyEntry]) -> None:
    for name in keys:
        if not NAME.fullmatch(name):
            raise KeyFileError(
                f"{path}: keys.{name[:64]!r}: a name has 1 to 64 of A-Z a-z 0-9 . _ @ -, and begins"
                " with a letter or digit"
            )
    owners: dict[str, str] = {}
    for name, entry in keys.items():
        other = owners.setdefault(entry.sha256, name)
        if other != name:
            raise KeyFileError(
                f"{path}: keys.{name}.sha256: the same as that of {other}; make another key"
            )


def _first(error: ValidationError) -> str:
    """The first of what pydantic found, without the value: it may be a key that was put in."""
    found: Any = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part)[:64] for part in found["loc"]) or "the file"
    if where.endswith(".sha256") and found["type"] == "string_pattern_mismatch":
        return f"{where}: no SHA-256 of a key, 64 hexadecimal digits; trellis keys add writes it"
    return f"{where}: {found['msg']}"
