# SPDX-License-Identifier: Apache-2.0
"""Hooks: the file can be imported by the Python that will serve, and has what it needs."""

import subprocess
from collections.abc import Iterator

from trellis.pipeline.hooks import FILE, NAME
from trellis.preflight.check import Check
from trellis.preflight.repository import Repository

LOAD_SECONDS = 120
MODELS = ("preprocessing", "postprocessing")
# Run with the files that will be served.
LOAD_HOOKS = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
from trellis.pipeline.hooks import load_hooks
try:
    load_hooks(folder)
except Exception as error:
    sys.exit(str(error))
"""


def check_hooks(repository: Repository) -> Iterator[Check]:
    """One check where there are hooks; each model has the file."""
    folders = [repository.version(model) for model in MODELS]
    folders = [folder for folder in folders if (folder / FILE).is_file()]
    if not folders:
        return
    found = next(filter(None, (_error(repository.python, str(folder)) for folder in folders)), "")
    remedy = "correct your file and make the repository again with HOOKS=" if found else ""
    yield Check("hooks", found or NAME, "a file that can be imported", not found, remedy)


def _error(python: str, folder: str) -> str:
    """Why the hooks in a folder cannot be used; '' if they can."""
    try:
        command = [python, "-B", "-c", LOAD_HOOKS, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}"
    lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
    return lines[-1] if done.returncode else ""
