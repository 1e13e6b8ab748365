# SPDX-License-Identifier: Apache-2.0
"""Whatever takes or gives arrays says their shapes and dtypes where it is documented."""

import ast
import re
from collections.abc import Iterator

import pytest

from support.paths import ROOT

SHAPE = re.compile(r"\[[^\]\n]*\]")
ALIAS = re.compile(r"\bTensors\b")  # of pipeline/told.py: arrays by name
DTYPE = re.compile(r"\b(?:u?int(?:8|16|32|64)|float(?:16|32|64)|bool|object|UTF-8|dtypes?)\b")


def array_functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """The public functions, methods and classes' own whose signatures speak of arrays."""
    for folder in ("src/trellis", "tokenizers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, node in _public(ast.parse(path.read_text()), ""):
                if _speaks_of_arrays(node):
                    yield f"{path.relative_to(ROOT)}:{name}", node


def _public(node: ast.AST, within: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _public(child, f"{within}{child.name}.")
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
            yield f"{within}{child.name}", child


def _speaks_of_arrays(function: ast.FunctionDef) -> bool:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    hints = [argument.annotation for argument in every] + [function.returns]
    words = [ast.unparse(hint) for hint in hints if hint is not None]
    return any("ndarray" in word or ALIAS.search(word) for word in words)


FUNCTIONS = dict(array_functions())


def test_there_are_functions_with_arrays() -> None:
    assert len(FUNCTIONS) > 20
    assert "src/trellis/pipeline/tensors.py:padded_ids" in FUNCTIONS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_gives_shapes_and_dtypes(name: str) -> None:
    text = ast.get_docstring(FUNCTIONS[name]) or ""
    assert SHAPE.search(text), f"{name}: says no shape, such as [rows, longest]"
    assert DTYPE.search(text), f"{name}: says no dtype, such as int32"


def test_what_a_docstring_without_them_says_is_found() -> None:
    function = ast.parse('def f(a: np.ndarray) -> int:\n    """Gives the ids."""').body[0]
    assert isinstance(function, ast.FunctionDef)
    assert _speaks_of_arrays(function)
    assert not SHAPE.search(ast.get_docstring(function) or "")
