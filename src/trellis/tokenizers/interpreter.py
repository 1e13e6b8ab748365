# SPDX-License-Identifier: Apache-2.0
"""A Python to start a process with, from inside an interpreter that may be embedded.

Triton's stub embeds Python: `sys.executable` may then be empty, or name another Python than the
one whose packages are imported. What is returned was run, and is of this interpreter's version.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PROBE = "import sys; print(*sys.version_info[:2], sys.implementation.name)"
PROBE_SECONDS = 30


def find_python() -> str:
    """The path of a Python of this version. Raises RuntimeError with what to do if none is here."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = f"{version.replace('.', ' ')} {sys.implementation.name}"
    tried = list(dict.fromkeys(_candidates(version)))
    for path in tried:
        if _probe(path) == wanted:
            return path
    raise RuntimeError(
        f"a process of its own needs a Python {version}, and none was found among"
        f" {', '.join(tried) or 'nothing'}: put python{version} on PATH"
    )


def _candidates(version: str) -> Iterator[str]:
    if sys.executable:
        yield sys.executable
    names = (f"python{version}", "python3")
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix):
        yield from (str(Path(prefix) / "bin" / name) for name in names)
    yield from (found for name in names if (found := shutil.which(name)))


def _probe(path: str) -> str:
    """What the Python there says of itself; '' if there is none, or another program."""
    if not os.access(path, os.X_OK):
        return ""
    try:
        done = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
