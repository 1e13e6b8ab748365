# SPDX-License-Identifier: Apache-2.0
"""The launcher that starts itself again under a real mpirun, for TensorRT-LLM's LLM API.

The package's command is a stand-in of a few lines: it does with its arguments what the package's
does (it takes them apart at spaces, and drops MPI's variables), and starts no workers.
"""

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from support.waiting import wait_for
from trellis.ranks.llm_api import COMMAND, run_by_mpi
from trellis.ranks.options import RankOptions, find_mpirun
from trellis.server.settings import ServerFailed

STAND_IN = """#!/bin/bash
command="${@:1}"
export TLLM_SPAWN_PROXY_PROCESS=1 tllm_mpi_size=$OMPI_COMM_WORLD_SIZE
if [ "$OMPI_COMM_WORLD_RANK" -eq 0 ]; then
  (for name in $(compgen -e); do case $name in OMPI_*|PMIX_*) unset "$name";; esac; done
   $command
   touch "$FOLDER/over") &
  while [ ! -e "$FOLDER/over" ]; do sleep 0.1; done
else
  while [ ! -e "$FOLDER/over" ]; do sleep 0.1; done
fi
"""
LAUNCHER = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(os.environ["FOLDER"])
def stop(*_):
    (folder / "stopped").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
inside = [os.environ.get(name, "") for name in ("TLLM_SPAWN_PROXY_PROCESS", "tllm_mpi_size")]
left = [name for name in os.environ if name.startswith("OMPI_")]
(folder / "began.tmp").write_text(" ".join([*sys.argv[1:], *inside, *left]))
(folder / "began.tmp").rename(folder / "began")
time.sleep(60)
"""
OPTIONS = RankOptions(2, nodes="localhost:2", oversubscribe=True)


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of a launcher that says where it runs, with the stand-in on PATH."""
    mpirun = find_mpirun()
    (tmp_path / COMMAND).write_text(STAND_IN)
    (tmp_path / COMMAND).chmod(0o755)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    bash = shutil.which("bash")
    assert bash is not None
    folders = [str(tmp_path), str(Path(mpirun).parent), str(Path(bash).parent)]
    monkeypatch.setenv("PATH", os.pathsep.join([*folders, os.environ["PATH"]]))
    monkeypatch.setenv("FOLDER", str(tmp_path))
    return [sys.executable, str(tmp_path / "launcher.py"), "--world_size", "2"]


def test_it_runs_once_and_is_asked_to_stop(launcher: list[str], tmp_path: Path) -> None:
    stopping = threading.Event()
    running = threading.Thread(target=run_by_mpi, args=(OPTIONS, launcher, 5.0, stopping.is_set))
    running.start()
    wait_for((tmp_path / "began").exists, 30)
    assert (tmp_path / "began").read_text() == "--world_size 2 1 2"
    tree = psutil.Process().children(recursive=True)
    assert sum("launcher.py" in " ".join(each.cmdline()[:2]) for each in tree) == 1
    begin = time.monotonic()
    stopping.set()
    running.join(30)
    assert not running.is_alive()
    assert time.monotonic() - begin < 15
    assert (tmp_path / "stopped").exists()
    assert not [each for each in tree if each.is_running()]


def test_a_launcher_that_dies_ends_all(launcher: list[str], tmp_path: Path) -> None:
    def kill() -> None:
        wait_for((tmp_path / "began").exists, 30)
        for each in psutil.Process().children(recursive=True):
            if "launcher.py" in " ".join(each.cmdline()[:2]):
                each.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(ServerFailed, match="trtllm-llmapi-launch ended with status"):
        run_by_mpi(OPTIONS, launcher, 5.0, lambda: False)
    killing.join()
