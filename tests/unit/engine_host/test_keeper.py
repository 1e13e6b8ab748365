# SPDX-License-Identifier: Apache-2.0
"""Nothing that an engine's library started outlives the engine or its host."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# An engine that starts a worker, which starts one of its own in a session of its own.
ENGINE = """
import os, subprocess, sys, time
from trellis.engine_host.engines.keeper import keep
keep()
inner = "import time; time.sleep(60)"
worker = ("import subprocess, sys, time;"
          f"subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True);"
          "print('worker', flush=True); time.sleep(60)")
child = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE)
child.stdout.readline()
print(os.getpid(), flush=True)
if sys.argv[1] == "ends":
    os._exit(3)
time.sleep(60)
"""
HOST = """
import subprocess, sys, time
engine = subprocess.Popen([sys.executable, "-c", sys.argv[1], "stays"], stdout=sys.stdout)
print(engine.pid, flush=True)
time.sleep(60)
"""
WAIT = 10.0


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A variable that all processes of a test inherit, by which they are found."""
    value = f"keeper-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv("TRELLIS_TEST", value)
    yield value
    for process in alive(value):
        os.kill(process, signal.SIGKILL)


def alive(mark: str) -> list[int]:
    """The processes with that mark, this one aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def nothing_left(mark: str) -> None:
    end = time.monotonic() + WAIT
    while left := alive(mark):
        assert time.monotonic() < end, left
        time.sleep(0.02)


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True, close_fds=True
    )


def test_an_engine_that_ends_takes_its_workers_along(marked: str) -> None:
    keeper = start(ENGINE, "ends")
    assert keeper.wait(WAIT) == 3  # the engine's own status
    nothing_left(marked)


def test_an_engine_that_is_killed_takes_its_workers_along(marked: str) -> None:
    keeper = start(ENGINE, "stays")
    assert keeper.stdout is not None
    engine = int(keeper.stdout.readline())
    assert len(alive(marked)) == 4  # keeper, engine, worker and the worker's own
    os.kill(engine, signal.SIGKILL)
    assert keeper.wait(WAIT) == 128 + signal.SIGKILL
    nothing_left(marked)


def test_a_host_that_is_killed_leaves_nothing(marked: str) -> None:
    host = start(HOST, ENGINE)
    assert host.stdout is not None
    host.stdout.readline(), host.stdout.readline()
    assert len(alive(marked)) == 5
    host.kill()
    host.wait()
    nothing_left(marked)


def test_a_keeper_that_is_told_to_end_leaves_nothing(marked: str) -> None:
    keeper = start(ENGINE, "stays")
    assert keeper.stdout is not None
    keeper.stdout.readline()
    keeper.terminate()
    assert keeper.wait(WAIT) == 1
    nothing_left(marked)
