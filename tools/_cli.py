"""How the tools read their options: by typer, with a --help that cuts nothing short."""

from collections.abc import Callable

import typer


def run(main: Callable[..., object]) -> None:
    """Run a tool's function by the command line.

    Help is click's own text: that of rich cuts long options at the width of the terminal, 80
    columns where there is none.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(main)
    app()
