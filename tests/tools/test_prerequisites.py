"""What a fresh machine lacks is named before anything is downloaded, with one line to paste."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trellis.server import prerequisites
from trellis.server.prerequisites import Lack, apt_line, lacks, remedy

ROOT = Path(__file__).parents[2]
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
    assert [lack for lack in lacks() if lack.needed] == []


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


def test_make_setup_stops_before_it_downloads(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in ("MAKEFLAGS", "MAKELEVEL"):
        environment.pop(name, None)
    venv = tmp_path / "venv"
    base = Path(sys.base_prefix) / "bin" / f"python{VERSION}"
    command = ["make", "setup", f"VENV={venv}", f"PYTHON={base}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "missing here: the modules venv and ensurepip, libpython" in done.stdout
    assert "installing" not in done.stdout
    assert not venv.exists()


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = ["make", "setup", f"VENV={tmp_path / 'venv'}", "PYTHON=python3.99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "PYTHON=python3.99: not found" in done.stdout
    assert "installing" not in done.stdout
