# SPDX-License-Identifier: Apache-2.0
"""The temporary directory of an engine's library is the folder that the launcher removes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOLD = """
import json, os, subprocess, sys, tempfile
tempfile.gettempdir()  # as it is before
from trellis.ipc.server_folder import use_server_folder
use_server_folder()
below = [sys.executable, "-c", "import tempfile; print(tempfile.gettempdir())"]
print(json.dumps([
    tempfile.gettempdir(),
    subprocess.check_output(below, text=True).strip(),
    os.environ.get("TORCHINDUCTOR_CACHE_DIR"),
]))
"""


def told(place: Path, **environment: str) -> list[str | None]:
    """The temporary directory of a process and of one below, and torch's cache."""
    given = {**os.environ, "TMPDIR": str(place), **environment}
    made = subprocess.run([sys.executable, "-c", TOLD], env=given, capture_output=True, check=True)
    found: list[str | None] = json.loads(made.stdout)
    return found


def test_files_of_a_library_go_where_the_launcher_removes_them(tmp_path: Path) -> None:
    folder = tmp_path / "trellis-1"
    folder.mkdir()
    cache = str(tmp_path / f"torchinductor_{os.getuid()}")
    assert told(tmp_path, TRELLIS_FOLDER=str(folder)) == [str(folder), str(folder), cache]
    own = {"TRELLIS_FOLDER": str(folder), "TORCHINDUCTOR_CACHE_DIR": "/own"}
    assert told(tmp_path, **own) == [str(folder), str(folder), "/own"]


@pytest.mark.parametrize("folder", ["", "/not/there"])
def test_without_a_launcher_all_is_as_it_was(tmp_path: Path, folder: str) -> None:
    assert told(tmp_path, TRELLIS_FOLDER=folder) == [str(tmp_path), str(tmp_path), None]
