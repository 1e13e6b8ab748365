# SPDX-License-Identifier: Apache-2.0
"""API keys: trellis keys add alice --requests-per-minute 60; list; remove alice."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from trellis.errors import TrellisError
from trellis.gateway.access.key_file import (
    KeyEntry,
    KeyFileError,
    KeyLimits,
    digest,
    new_key,
    read_keys,
    write_keys,
)

Limit = Annotated[int, typer.Option(min=0, show_default="no limit")]


def main(
    action: Annotated[Literal["add", "list", "remove"], typer.Argument()],
    name: Annotated[str, typer.Argument(help="whose key it is, in logs and limits")] = "",
    file: Annotated[Path, typer.Option(envvar="TRELLIS_API_KEYS", help="the file of keys")] = Path(
        "api_keys.yaml"
    ),
    requests_in_flight: Limit = 0,
    tokens_in_flight: Limit = 0,
    requests_per_minute: Limit = 0,
    tokens_per_minute: Limit = 0,
) -> None:
    """Make, list and remove API keys. A new key is printed once; the file has its hash alone.

    A running server reads the file again on SIGHUP.
    """
    limits = KeyLimits(
        requests_in_flight=requests_in_flight,
        tokens_in_flight=tokens_in_flight,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    if bool(name) == (action == "list"):
        _fail(f"{action}: {'give the NAME of the key' if not name else 'takes no NAME'}")
    try:
        keys = read_keys(file) if action != "add" or file.exists() else {}
        if action == "list":
            _list(keys)
        elif action == "add":
            _add(file, keys, name, limits)
        else:
            _remove(file, keys, name)
    except (TrellisError, OSError) as error:
        _fail(str(error))


def _add(file: Path, keys: dict[str, KeyEntry], name: str, limits: KeyLimits) -> None:
    if name in keys:
        raise KeyFileError(f"{file}: there is a key {name}; remove it first, or take another name")
    key = new_key()
    entry = KeyEntry(sha256=digest(key), **limits.model_dump())
    write_keys(file, {**keys, name: entry})
    typer.echo(f"the key of {name}, which is shown only now; {file} has its hash:", err=True)
    typer.echo(key)


def _list(keys: dict[str, KeyEntry]) -> None:
    for name, entry in keys.items():
        limits = entry.model_dump(exclude_defaults=True, exclude={"sha256"})
        shown = ", ".join(f"{limit} {value}" for limit, value in limits.items())
        typer.echo(f"{name}: {shown or 'no limits'}")


def _remove(file: Path, keys: dict[str, KeyEntry], name: str) -> None:
    if name not in keys:
        known = ", ".join(keys) or "none"
        raise KeyFileError(f"{file}: there is no key {name}; there are: {known}")
    write_keys(file, {each: entry for each, entry in keys.items() if each != name})


def _fail(message: str) -> None:
    typer.echo(f"trellis keys: {message}", err=True)
    raise typer.Exit(1)
