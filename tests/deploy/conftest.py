"""What the tests of deploy/ share."""

import re
import subprocess
import sys

import pytest

from support.paths import ROOT


@pytest.fixture(scope="session")
def launcher_options() -> set[str]:
    help_text = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "launch_triton_server.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
    ).stdout
    return set(re.findall(r"--[a-z][\w-]*", help_text))
