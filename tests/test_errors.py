"""Every error that Trellis raises on purpose has one base."""

import ast
import builtins
from pathlib import Path

import trellis
from trellis.errors import RequestError

OWN = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def exceptions() -> list[tuple[str, set[str]]]:
    """Classes of the package with an exception among their bases, and those bases."""
    found = []
    for file in Path(trellis.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                if bases & {*OWN, "TrellisError"} and node.name != "TrellisError":
                    found.append((f"{file.name}: {node.name}", bases))
    return found


def test_every_error_is_a_trellis_error() -> None:
    found = exceptions()
    assert len(found) > 20
    assert [name for name, bases in found if "TrellisError" not in bases] == []


def test_a_rejected_request_names_its_field() -> None:
    assert RequestError("top_k: -1 is not allowed; send 0 (all) or more").field == "top_k"
