"""File systems of a few kilobytes, for one command alone (user and mount namespaces)."""

import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest


@cache
def possible() -> bool:
    """Whether this machine allows them."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    return subprocess.run(command, capture_output=True).returncode == 0


needed = pytest.mark.skipif(not possible(), reason="user and mount namespaces are not allowed here")


def around(folder: Path, options: str) -> str:
    """A shell command line with `{}` for the command that sees a small tmpfs at `folder`."""
    mount = f"mount -t tmpfs -o {options} tmpfs {shlex.quote(str(folder))}"
    return f"exec unshare -rm sh -c '{mount} && eval \"$0\"' {{}}"
