# SPDX-License-Identifier: Apache-2.0
"""How the tools read their options: by typer, with a --help that cuts nothing short."""

from collections.abc import Callable
from typing import Any

import click
import typer


def run(main: Callable[..., object]) -> Any:
    """Run a tool's function by the command line.

    Help is click's own text: that of rich cuts long options at the width of the terminal, 80
    columns where there is none.
    """
    if isinstance(main, click.Command):
        return main()
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(main)
    app()
