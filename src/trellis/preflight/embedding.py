# SPDX-License-Identifier: Apache-2.0
"""An embedding model of a repository: its configuration, and what it imports."""

import re
import subprocess
from pathlib import Path

from trellis.preflight.check import Check
from trellis.preflight.machine import missing_packages

WHAT = "embedding model"
ENGINE = "openvino"


def check_embedding(model_repo: Path, name: str, python: str) -> Check:
    """Nothing is left to fill in, and the packages are there."""
    file = model_repo / name / "config.pbtxt"
    left = re.findall(r"\$\{\w+\}", file.read_text(encoding="utf-8"))
    if left:
        remedy = "make it with `make repo`"
        return Check(WHAT, f"{file}: {', '.join(left)}", "no ${...} left", False, remedy)
    try:
        packages = missing_packages(python, ENGINE)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        remedy = "repair that Python: `make clean-venv setup`"
        return Check(WHAT, f"{python}: {error}", "a Python that serves", False, remedy)
    if packages:
        remedy = f"{python} -m pip install {' '.join(packages)}"
        return Check(WHAT, f"no {', '.join(packages)} for {python}", "its packages", False, remedy)
    return Check(WHAT, f"{name}, with its packages for {python}", "its packages", True)
