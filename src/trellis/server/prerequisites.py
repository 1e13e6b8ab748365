# SPDX-License-Identifier: Apache-2.0
"""What the machine itself has to have before anything is downloaded, and the line that installs it.

Imports nothing but the standard library: it runs with the Python that .venv will be made with.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

VERSIONS = ((3, 10), (3, 13))  # the oldest and the newest that there is a Triton for
CONTAINER_SERVER = Path("/opt/tritonserver/bin/tritonserver")


class Lack(NamedTuple):
    """What is missing, the Debian package that has it, and whether nothing works without it."""

    what: str
    package: str
    needed: bool = True


def python_version() -> str:
    """Of this Python: `3.11`."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_libpython() -> "Path | None":
    """The folder of libpython3.X.so, None where there is none; Triton's stub is linked to it."""
    name = sysconfig.get_config_var("INSTSONAME") or ""
    folders = [Path(sysconfig.get_config_var("LIBDIR") or ""), Path(sys.base_prefix) / "lib"]
    for folder in folders:
        if name.startswith("libpython") and ".so" in name and (folder / name).is_file():
            return folder
    return None


def lacks(tests: bool = False) -> "list[Lack]":
    """All that is missing here for this Python; what the tests take too, if they are to run."""
    version, found = python_version(), []
    in_venv = sys.prefix != sys.base_prefix
    modules = () if in_venv else ("venv", "ensurepip")
    if any(importlib.util.find_spec(module) is None for module in modules):
        found.append(Lack("the modules venv and ensurepip", f"python{version}-venv"))
    if find_libpython() is None and not CONTAINER_SERVER.is_file():
        found.append(Lack(f"libpython{version}.so", f"libpython{version}"))
    tools = [("make", True), ("curl", False)]
    found += [Lack(name, name, needed) for name, needed in tools if shutil.which(name) is None]
    if tests:
        found += lacks_of_tests()
    return found


def lacks_of_tests() -> "list[Lack]":
    """The C compiler, with libc's headers, of the stand-in engine (tests/support/standin)."""
    compiler = os.environ.get("CC", "gcc")
    if shutil.which(compiler) is None:
        return [Lack(f"a C compiler ({compiler})", "gcc")]
    command = [compiler, "-E", "-include", "pthread.h", "-x", "c", os.devnull]
    if subprocess.run(command, capture_output=True).returncode:
        return [Lack(f"the headers of libc for {compiler}", "libc6-dev")]
    return []


def apt_line(packages: "list[str]") -> str:
    """The line to paste.

    >>> apt_line(["curl"])
    'sudo apt-get update && sudo apt-get install -y curl'
    """
    sudo = "sudo " if os.getuid() else ""
    return f"{sudo}apt-get update && {sudo}apt-get install -y {' '.join(packages)}"


def remedy(found: "list[Lack]") -> str:
    """What to do: one line of apt's, or another Python where apt has nothing to do with this."""
    packages = [lack.package for lack in found]
    line = apt_line(packages)
    of_python = [lack for lack in found if "python" in lack.package]
    if of_python and sys.base_prefix != "/usr":
        return (
            f"{sys.base_prefix} is no Python of apt's: set PYTHON=/usr/bin/python3, or to a Python"
            " that was built with --enable-shared"
        )
    return line
