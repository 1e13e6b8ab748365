"""The table of families in docs/tokenizers.md.

    PYTHONPATH=tests python -m families.family_table     prints it, and writes it into the page

Standard library only.
"""

import json
import re
from pathlib import Path

from families.family_types import REFUSED, TYPES
from families.fetch_families import FAMILIES, Family
from support.paths import ROOT

PAGE = ROOT / "docs" / "tokenizers.md"
BEGIN, END = "<!-- families -->\n", "<!-- /families -->"
GOLDEN = json.loads(Path(__file__).with_name("transformers_4_57.json").read_text())
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"


def table() -> str:
    """Markdown: a row a family."""
    rows = ["| family | package | files | reference | types |", "|---|---|---|---|---|"]
    return "\n".join([*rows, *map(_row, FAMILIES)]) + "\n"


def _row(family: Family) -> str:
    names = [f"`{name}`" for name in family.files.values() if not name.startswith("special_")]
    kinds = ["auto", *TYPES[family.name].split()]
    taken = [kind for kind in kinds if (family.name, kind) not in REFUSED]
    refusing = [kind for name, kind in REFUSED if name == family.name and kind in kinds]
    types = ", ".join(taken) + (f" (refused: {', '.join(refusing)})" if refusing else "")
    package = f"{family.registry} {family.package} {family.version}"
    return f"| {family.name} | {package} | {', '.join(names)} | {_reference(family)} | {types} |"


def _reference(family: Family) -> str:
    """The libraries that the family is compared with, and their versions."""
    files = set(family.files.values())
    if "tokenizer.json" in files:
        older = ", transformers 4.57.6" if family.name in GOLDEN else ""
        return f"tokenizers {pinned('tokenizers')}{older}"
    name = {"transformers": "sentencepiece"} if any(".model" in file for file in files) else {}
    library = name.get(family.reference, family.reference)
    return f"{library} {pinned(library)}"


def pinned(package: str) -> str:
    """The newest version of a package in the constraints."""
    found: list[str] = re.findall(rf"^{package}==([\w.]+)", CONSTRAINTS.read_text(), re.MULTILINE)
    return max(found, key=lambda text: [int(part) for part in text.split(".")])


def main() -> None:
    """Write the table into the page."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}")
    print(table())


if __name__ == "__main__":
    main()
