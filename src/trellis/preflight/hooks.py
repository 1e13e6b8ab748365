# SPDX-License-Identifier: Apache-2.0
"""Files of the user's own that the Python that will serve has to load: hooks, and parsers."""

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

LOAD_PARSER = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
from trellis.pipeline.model_settings import ModelSettings, load_parser
try:
    load_parser(ModelSettings("postprocessing", folder, {"parser": sys.argv[2]}, {}, 1))
except Exception as error:
    sys.exit(str(error))
"""


def check_hooks(repository: Repository) -> Iterator[Check]:
    """One check where there are hooks; each model has the file."""
    folders = [repository.version(model) for model in MODELS]
    folders = [folder for folder in folders if (folder / FILE).is_file()]
    if not folders:
        return
    errors = (_error(repository.python, LOAD_HOOKS, str(folder)) for folder in folders)
    found = next(filter(None, errors), "")
    remedy = "correct your file and make the repository again with HOOKS=" if found else ""
    yield Check("hooks", found or NAME, "a file that can be imported", not found, remedy)


def check_parser(repository: Repository) -> Iterator[Check]:
    """One check where the model's answers are parsed for tool calls and thoughts."""
    names = repository.parameter("postprocessing", "parser")
    if not names:
        return
    found = _error(repository.python, LOAD_PARSER, str(repository.version("postprocessing")), names)
    remedy = "make the repository again with another PARSER=, or PARSER=none" if found else ""
    yield Check("parser", found or names, "formats that can be loaded", not found, remedy)


def _error(python: str, code: str, *arguments: str) -> str:
    """The last line of what a few lines of Python say as they fail; '' if they do not."""
    try:
        command = [python, "-B", "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}"
    lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
    return lines[-1] if done.returncode else ""
