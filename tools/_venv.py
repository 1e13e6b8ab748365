# SPDX-License-Identifier: Apache-2.0
"""Lets `python tools/x.py` work with any python3: it goes on in .venv where it must."""

import importlib.util
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PYTHON = _ROOT / ".venv" / "bin" / "python"

if importlib.util.find_spec("typer") is None:
    if not _PYTHON.exists():
        sys.exit("The Python packages of the tools are not installed; run `make setup` first.")
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])
sys.path.insert(0, str(_ROOT / "src"))  # this checkout's, whatever else is installed
