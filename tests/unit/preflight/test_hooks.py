"""Hooks that cannot be imported are found before anything is launched."""

import sys
from pathlib import Path

from trellis.pipeline.hooks import FILE
from trellis.preflight.hooks import LOAD_HOOKS, _error


def error_of(folder: Path, text: str, python: str = sys.executable) -> str:
    (folder / FILE).parent.mkdir(parents=True)
    (folder / FILE).write_text(text)
    return _error(python, LOAD_HOOKS, str(folder))


def test_a_file_that_can_be_imported_has_no_error(tmp_path: Path) -> None:
    assert error_of(tmp_path, "def prompt(text):\n    return text\n") == ""


def test_the_last_line_of_what_it_raises_is_said(tmp_path: Path) -> None:
    assert "no_such_package" in error_of(tmp_path, "import no_such_package\n")


def test_a_python_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "/no/python" in error_of(tmp_path, "", "/no/python")
