# SPDX-License-Identifier: Apache-2.0
"""What a check found out: one line of the table."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """`remedy` says what to do, where `ok` is false."""

    what: str
    found: str
    needed: str
    ok: bool
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)

    def __str__(self) -> str:
        """One line: `ports: --http_port 8000 is taken; needed: free on 127.0.0.1; stop that`."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.what}: {self.found}; needed: {self.needed}{remedy}"
