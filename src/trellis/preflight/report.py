# SPDX-License-Identifier: Apache-2.0
"""Checks for people: one table, and one line that says what comes of it."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trellis.preflight.check import Check


def show(checks: Sequence[Check], console: Console) -> None:
    """What, found, needed, ok or not and the remedy."""
    table = Table()
    for title in ("what", "found", "needed", "", "what to do"):
        table.add_column(title, overflow="fold")
    for check in checks:
        mark = Text("ok", "green") if check.ok else Text("NO", "bold red")
        table.add_row(
            Text(check.what), Text(check.found), Text(check.needed), mark, Text(check.remedy)
        )
    console.print(table)
    console.print(verdict(checks), soft_wrap=True, markup=False, highlight=False)


def verdict(checks: Sequence[Check]) -> str:
    """One line: it will run, or what stands against it.

    >>> verdict([Check("ports", "8000", "free", True)])
    'ok: 1 check passed, this will run here'
    """
    failing = [check.what for check in checks if not check.ok]
    count = f"{len(checks)} check{'s' if len(checks) > 1 else ''}"
    if failing:
        return f"NO: {len(failing)} of {count} failed: {', '.join(dict.fromkeys(failing))}"
    return f"ok: {count} passed, this will run here"
