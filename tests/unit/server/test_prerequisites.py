"""What a fresh machine lacks is named before anything is downloaded, with one line to paste."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import ROOT
from trellis.server import prerequisites
from trellis.server.prerequisites import Lack, apt_line, lacks, lacks_of_tests, remedy

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# As Python begins, it makes a module one that is not installed.
HIDE = """
import importlib.machinery, sys, sysconfig
class Hiding(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "ensurepip" else super().find_spec(name, path, target)
sys.meta_path = [Hiding if f is importlib.machinery.PathFinder else f for f in sys.meta_path]
sysconfig.get_config_vars()["INSTSONAME"] = "libpython.a"
"""


def test_this_machine_lacks_nothing() -> None:
    assert [lack for lack in lacks(tests=True) if lack.needed] == []


def test_one_line_installs_all_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    found = [Lack("venv", "python3.11-venv"), Lack("a library", "libpython3.11"), Lack("c", "curl")]
    line = remedy(found)
    assert line == apt_line(["python3.11-venv", "libpython3.11", "curl"])
    assert line.endswith("apt-get install -y python3.11-venv libpython3.11 curl")
    assert "\n" not in line


def test_a_python_that_is_not_apts_is_not_mended_by_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/opt/python")
    told = remedy([Lack("a library", "libpython3.11")])
    assert told.startswith("/opt/python is no Python of apt's: set PYTHON=/usr/bin/python3")
    assert remedy([Lack("curl", "curl")]).endswith("apt-get install -y curl")


def test_curl_alone_is_only_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "curl" else name)
    assert prerequisites.lacks() == [Lack("curl", "curl", needed=False)]


def test_the_tests_need_a_compiler_and_the_headers_of_libc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", "no-such-cc")
    assert lacks_of_tests() == [Lack("a C compiler (no-such-cc)", "gcc")]
    assert "gcc" not in [lack.package for lack in lacks()]
    headless = tmp_path / "headless-cc"
    headless.write_text("#!/bin/sh\necho pthread.h: No such file or directory >&2\nexit 1\n")
    headless.chmod(0o755)
    monkeypatch.setenv("CC", str(headless))
    assert [lack.package for lack in lacks_of_tests()] == ["libc6-dev"]


def test_the_first_line_of_the_readme_installs_all_that_can_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if "make demo" in line and "apt-get install" in line)
    named = set(line.partition("install -y ")[2].partition(" &&")[0].split())
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(prerequisites, "find_libpython", lambda: None)
    monkeypatch.setattr(prerequisites, "CONTAINER_SERVER", Path("/nowhere"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    found = {lack.package.replace(VERSION, "3") for lack in lacks(tests=True)}
    assert found == {"python3-venv", "libpython3", "make", "curl", "gcc"}
    assert found - {"libpython3"} | {"git", "libpython3-dev"} == named


def make_in_another_venv(
    target: str, folder: Path, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """`make target` with a venv that is not there yet, made with the Python of this one."""
    environment = {**os.environ, **variables}
    for name in ("MAKEFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    base = Path(sys.base_prefix) / "bin" / f"python{VERSION}"
    command = ["make", target, f"VENV={folder / 'venv'}", f"PYTHON={base}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_make_test_without_a_compiler_stops_before_it_downloads(tmp_path: Path) -> None:
    done = make_in_another_venv("test", tmp_path, CC="no-such-cc")
    assert done.returncode != 0
    assert "missing here: a C compiler (no-such-cc)" in done.stdout
    assert "apt-get install -y gcc" in done.stdout
    assert "installing" not in done.stdout
    assert not (tmp_path / "venv").exists()


def test_make_setup_stops_before_it_downloads(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    venv = tmp_path / "venv"
    done = make_in_another_venv("setup", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "missing here: the modules venv and ensurepip, libpython" in done.stdout
    assert "installing" not in done.stdout
    assert not venv.exists()


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = ["make", "setup", f"VENV={tmp_path / 'venv'}", "PYTHON=python3.99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "PYTHON=python3.99: not found" in done.stdout
    assert "installing" not in done.stdout
