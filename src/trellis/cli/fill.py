# SPDX-License-Identifier: Apache-2.0
"""Fill the placeholders of a config.pbtxt: fill_template.py -i FILE key:value,key:value."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from trellis.contract.placeholder import known_placeholders, translate
from trellis.contract.release import template_keys
from trellis.errors import TrellisError
from trellis.files import write_atomically
from trellis.repository.model_configs import SOURCES
from trellis.repository.template import TemplateError, fill, parse_substitutions, placeholders_in
from trellis.repository.template_source import LITERAL

PIPED_COLUMNS = 400  # where nobody's window is to be fitted, a placeholder is one line


def main(
    file: Annotated[Path, typer.Argument(help="the template", exists=True, dir_okay=False)],
    substitutions: Annotated[
        str, typer.Argument(help=r"key:value,key:value ...; \ before a comma or colon keeps it")
    ] = "",
    in_place: Annotated[
        bool, typer.Option("--in_place", "--in-place", "-i", help="write the result into FILE")
    ] = False,
    allow_unfilled: Annotated[
        bool, typer.Option("--allow-unfilled", help="leave placeholders without a value")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="show every placeholder of FILE and stop")
    ] = False,
) -> None:
    """Fill a template strictly, and check that Triton can read the result."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"fill_template: {file}: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if list_:
        show(placeholders_in(text))
        return
    if in_place and not allow_unfilled and file.resolve().is_relative_to(SOURCES):
        print(
            f"fill_template: {file}: `make repo` reads this template, which has to keep its"
            " placeholders; fill a copy of it, or use `make repo SET=key:value`",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    try:
        given = parse_substitutions(substitutions)
        check_unfilled(text, given, str(file))
        values, notes = translate(
            given, placeholders_in(text), published=template_keys(model_name(text))
        )
        filled = fill(text, values, str(file), allow_unfilled)
    except TrellisError as error:
        print(f"fill_template: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    for note in notes:
        print(f"fill_template: {note}", file=sys.stderr)
    if given and not values and allow_unfilled:
        print(f"fill_template: {file}: nothing was filled in", file=sys.stderr)
        raise typer.Exit(1)
    if in_place:
        write_atomically(file, filled)
    else:
        print(filled, end="")


def check_unfilled(text: str, given: Mapping[str, str], name: str) -> None:
    """Raise TemplateError where a key, or all of a template, was filled before."""
    again = "fill a fresh copy of the template, or edit the value by hand"
    if given and not placeholders_in(text):
        raise TemplateError(f"{name}: has no placeholder left, it was filled before; {again}")
    for key, value in LITERAL.findall(text):
        if key in given and key not in placeholders_in(text):
            raise TemplateError(f'{name}: {key} was filled before, with "{value}"; {again}')


def model_name(template: str) -> str:
    """Which of the five models a template is of; '' if it does not say."""
    named = re.search(r'^name:\s*"(\w+)"', template, re.MULTILINE)
    return named.group(1) if named else ""


def show(names: list[str]) -> None:
    """A table of placeholders: name, type, default, meaning."""
    table = Table()
    table.add_column("placeholder", no_wrap=True, min_width=max(map(len, names), default=0))
    for title in ("type", "default", "meaning"):
        table.add_column(title, overflow="fold")
    known = known_placeholders()
    for name in names:
        spec = known.get(name)
        default = "(none)" if spec is None or spec.default is None else spec.default or '""'
        table.add_row(name, spec.type if spec else "text", default, spec.meaning if spec else "")
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPED_COLUMNS)
    console.print(table)
