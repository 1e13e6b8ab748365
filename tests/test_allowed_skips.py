"""`--strict-skips` fails a run that skips more than the list says, and names what it skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.allowed_skips import LIST, read_list

TESTS = Path(__file__).parent
SKIPPING = """
import pytest

def test_that_runs(): pass
def test_without_a_card(): pytest.skip("needs a GPU")
@pytest.mark.skipif(True, reason="only root can do this")
def test_of_root(): pass
@pytest.mark.xfail
def test_that_is_expected_to_fail(): assert False
"""
WHOLE_FILE = 'import pytest; pytest.skip("needs torch", allow_module_level=True)'


def run(folder: Path, allowed: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """pytest, with the plugin alone, on test_some.py of `folder`."""
    (folder / "list.txt").write_text(allowed)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-p", "support.allowed_skips", "--allowed-skips", "list.txt", *options]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_skip_that_is_not_on_the_list_fails_the_run_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPING)
    done = run(tmp_path, "test_some.py | only root* | a reason\n", "--strict-skips")
    assert done.returncode == 1
    assert "1 skipped, but not in allowed_skips.txt" in done.stdout
    assert (
        "NOT ALLOWED test_some.py: needs a GPU\n  test_some.py::test_without_a_card" in done.stdout
    )
    assert "test_of_root" not in done.stdout
    assert "1 passed, 2 skipped, 1 xfailed" in done.stdout


def test_what_is_on_the_list_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPING)
    allowed = "# of machines\n\ntest_some.py | only root* | a reason\n*.py | needs a GPU | why\n"
    assert run(tmp_path, allowed, "--strict-skips").returncode == 0


def test_a_reason_is_allowed_for_its_file_alone(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPING)
    allowed = "test_other.py | * | why\ntest_some.py | only root* | a reason\n"
    assert run(tmp_path, allowed, "--strict-skips").returncode == 1


def test_without_the_option_skips_fail_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPING)
    assert run(tmp_path, "").returncode == 0


def test_a_file_that_skips_itself_counts(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(WHOLE_FILE)
    done = run(tmp_path, "", "--strict-skips")
    assert done.returncode == 1
    assert "NOT ALLOWED test_some.py: needs torch" in done.stdout


def test_a_line_without_a_why_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPING)
    done = run(tmp_path, "test_some.py | only root*\n", "--strict-skips")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "list.txt:1: not `file | reason | why`" in done.stderr


def test_each_line_of_the_list_is_about_tests_that_are_there() -> None:
    for allowed in read_list(LIST):
        assert list(TESTS.parent.glob(allowed.file)), allowed
