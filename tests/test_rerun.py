"""tests/support/rerun.py: what fails in a part of `ci/` runs once more by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from support.rerun import MOST

FAILS_ONCE = """
import pathlib, pytest
seen = pathlib.Path(__file__).with_suffix(".seen")

def test_{name}():
    first = not seen.exists()
    seen.touch()
    assert not first
"""
FAILS = "def test_fails():\n    assert False\n"
PASSES = "def test_passes():\n    pass\n"
SETUP = FAILS_ONCE.replace("def test_{name}", "@pytest.fixture\ndef broken").replace("{name}", "x")


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The tests of a folder, as a part of `ci/` runs them."""
    script = ROOT / "tests" / "support" / "rerun.py"
    return subprocess.run(
        [sys.executable, str(script), str(folder), "-p", "no:randomly", *options],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text.replace("{name}", name))


@pytest.mark.parametrize("options", [(), ("-n", "2", "--dist", "loadfile")])
def test_what_fails_beside_others_alone_passes(tmp_path: Path, options: tuple[str, ...]) -> None:
    setup = f"{SETUP}\ndef test_of_it(broken):\n    pass\n"
    write(tmp_path, once=FAILS_ONCE, twice=FAILS_ONCE, good=PASSES, setup=setup)
    done = run(tmp_path, *options)
    assert done.returncode == 0, done.stdout
    assert "once more by themselves: " in done.stdout
    assert "3 passed" in done.stdout.splitlines()[-1]


def test_what_fails_again_fails(tmp_path: Path) -> None:
    write(tmp_path, once=FAILS_ONCE, always=FAILS, good=PASSES)
    done = run(tmp_path)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout.splitlines()[-1]


def test_many_failures_and_other_ends_stay(tmp_path: Path) -> None:
    write(tmp_path, **{f"f{number}": FAILS_ONCE for number in range(MOST + 1)})
    done = run(tmp_path)
    assert (done.returncode, "once more" in done.stdout) == (1, False)
    (tmp_path / "test_bad.py").write_text("import nothing_of_this_name\n")
    done = run(tmp_path)
    assert (done.returncode, "once more" in done.stdout) == (2, False)
