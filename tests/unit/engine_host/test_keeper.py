# SPDX-License-Identifier: Apache-2.0
"""Nothing that an engine's library started outlives the engine or its host."""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trellis.ipc.library_memory import NAMES, mapped, remove

# An engine that starts a worker, which starts one of its own in a session of its own.
ENGINE = """
import os, subprocess, sys, time
from trellis.engine_host.engines.keeper import keep
keep()
inner = "import time; time.sleep(60)"
worker = ("import mmap, subprocess, sys, time;"
          "file = open(sys.argv[1], 'w+b') if sys.argv[1:] else None;"
          "memory = file and (file.truncate(100), mmap.mmap(file.fileno(), 100));"
          f"subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True);"
          "print('worker', flush=True); time.sleep(60)")
child = subprocess.Popen([sys.executable, "-c", worker, *sys.argv[2:]], stdout=subprocess.PIPE)
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


@pytest.fixture
def files() -> Iterator[list[Path]]:
    """Names of files in shared memory, as Python's own library and vLLM choose them."""
    names = [f"{name}trellis_test_{os.getpid()}" for name in NAMES]
    made = [Path("/dev/shm") / name for name in names]
    yield made
    for each in made:
        each.unlink(missing_ok=True)


@pytest.mark.parametrize("ends", ["keeper", "engine"])
def test_shared_memory_of_what_is_killed_is_removed(
    marked: str, files: list[Path], ends: str
) -> None:
    file, other = files
    other.write_bytes(bytes(100))  # another's
    keeper = start(ENGINE, "stays", str(file))
    assert keeper.stdout is not None
    engine = int(keeper.stdout.readline())
    assert file.exists()
    os.kill(keeper.pid if ends == "keeper" else engine, signal.SIGTERM)
    keeper.wait(WAIT)
    nothing_left(marked)
    assert [file.exists(), other.exists()] == [False, True]


def test_only_what_a_process_has_mapped_is_its_own(files: list[Path]) -> None:
    one, other = files
    other.write_bytes(bytes(100))
    with one.open("w+b") as file:
        file.truncate(100)
        with mmap.mmap(file.fileno(), 100):
            assert mapped([os.getpid(), 2**22 + 1]) == {one}  # the second is gone
    assert mapped([os.getpid()]) == set()
    remove(files)
    remove(files)
    assert [each.exists() for each in files] == [False, False]
