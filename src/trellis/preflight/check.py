# SPDX-License-Identifier: Apache-2.0
"""What a check found out: one line of a table, and the whole table for people."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Check:
    """`remedy` says what to do, where `ok` is false or where it will run, but less well."""

    what: str
    found: str
    needed: str
    ok: bool
    remedy: str = ""

    @property
    def warns(self) -> bool:
        """Whether it will run, but less well than it could."""
        return self.ok and bool(self.remedy)

    def of(self, model: str) -> "Check":
        """The same, saying which model of several it is about."""
        return replace(self, what=f"{model}: {self.what}")

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def __str__(self) -> str:
        """One line: `ports: --http_port 8000 is taken; needed: free on 127.0.0.1; stop that`."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.what}: {self.found}; needed: {self.needed}{remedy}"


def show(checks: Sequence[Check], console: Console) -> None:
    """What, found, needed, ok or not and the remedy."""
    table = Table()
    for title in ("what", "found", "needed", "", "what to do"):
        table.add_column(title, overflow="fold")
    for check in checks:
        mark = Text("ok", "green") if check.ok else Text("NO", "bold red")
        mark = Text("!", "yellow") if check.warns else mark
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
