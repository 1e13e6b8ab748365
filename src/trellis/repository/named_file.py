# SPDX-License-Identifier: Apache-2.0
"""From a name on the command line to a file: one that is shipped, or one of the user's own."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from trellis.errors import TrellisError


class NamedFileError(TrellisError, ValueError):
    """A name without a file; the message lists those that there are."""


@dataclass(frozen=True)
class NamedFiles:
    """The files that a variable may name."""

    variable: str  # TOKENIZER
    kind: str  # tokenizer_type
    known: Collection[str]
    more: str = ""  # what else the variable may say, for an error's list

    def find(self, name: str) -> tuple[str, Path | None]:
        """The name, and its file where that is the user's own: a path, or NAME.py in this folder.

        A shipped one comes first. Raises NamedFileError for a name without a file.
        """
        if name.endswith(".py"):
            return self._own(name)
        own = Path(f"{name}.py")
        if name not in self.known and name.isidentifier() and own.is_file():
            return name, own
        if name not in self.known:
            raise NamedFileError(self._unknown(name))
        return name, None

    def _own(self, name: str) -> tuple[str, Path]:
        path = Path(name)
        if not path.is_file():
            raise NamedFileError(f"{self.variable}={name}: no such file")
        if not path.stem.isidentifier():
            raise NamedFileError(
                f"{self.variable}={name}: the file's name is the {self.kind}'s; use letters,"
                " digits and _"
            )
        return path.stem, path

    def _unknown(self, name: str) -> str:
        known = sorted(self.known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f", and no {name}.py in this folder."
        return (
            f"{self.variable}={name}: no such {self.kind}{hint} Known: {', '.join(known)},"
            f"{self.more} and a file of your own: {self.variable}=path/to/mine.py"
        )
