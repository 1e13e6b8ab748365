"""Folders in the temporary directory: those of servers that are gone go, all others stay."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trellis.server import folder as server_folder
from trellis.server.folder import LOCK, YOUNG_SECONDS, claim, make, remove, sweep

LONG_AGO = time.time() - 2 * YOUNG_SECONDS


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def aged(folder: Path) -> Path:
    """As if it had been made long ago, with something in it."""
    (folder / "backends").mkdir()
    (folder / "backends" / "stub").write_bytes(b"x")
    os.utime(folder / LOCK, (LONG_AGO, LONG_AGO))
    return folder


def test_only_the_folder_of_a_server_that_is_gone_is_swept_away(temporary: Path) -> None:
    running, killed, recent = make("a-"), make("b-"), make()
    locks = [claim(folder) for folder in (running, killed, recent)]
    aged(running), aged(killed)
    for lock in locks[1:]:
        os.close(lock)
    (temporary / "trellis-notes").mkdir()
    (temporary / "trellis-notes" / "thesis.txt").touch()
    (temporary / "trellis-file").touch()
    (temporary / "trellis-link").symlink_to(killed)
    assert sweep() == [killed]
    left = {path.name for path in temporary.iterdir()}
    kept = {"trellis-notes", "trellis-file", "trellis-link"}
    assert left == {running.name, recent.name, *kept}
    assert (temporary / "trellis-notes" / "thesis.txt").exists()
    assert (running / "backends" / "stub").exists()
    os.close(locks[0])
    assert sweep() == [running]


def test_a_process_that_inherited_the_lock_keeps_the_folder() -> None:
    folder = make()
    lock = claim(folder)
    aged(folder)
    wait = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", wait], stdin=subprocess.PIPE, pass_fds=[lock]
    ) as heir:
        os.close(lock)
        assert sweep() == []
        assert heir.stdin is not None
        heir.stdin.close()
    assert sweep() == [folder]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_the_folder_of_another_user_stays_even_for_root() -> None:
    folder = make()
    os.close(claim(folder))
    os.chown(aged(folder), 65534, 65534)
    assert sweep() == []
    assert (folder / "backends" / "stub").exists()


def test_what_was_left_half_removed_is_found_again() -> None:
    folder = make()
    os.close(claim(folder))
    (aged(folder) / "backends" / "stub").unlink()
    assert sweep() == [folder]
    assert not folder.exists()
    remove(folder)  # gone already


def test_launches_and_sweeps_at_once_never_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_folder, "YOUNG_SECONDS", -1.0)  # age is not what keeps them
    ended = threading.Event()

    def sweeping() -> None:
        while not ended.is_set():
            sweep()

    def launching(_: int) -> None:
        folder = make()
        lock = claim(folder)
        (folder / "backends").mkdir()
        assert (folder / LOCK).exists()
        remove(folder)
        os.close(lock)

    with ThreadPoolExecutor(6) as pool:
        sweepers = [pool.submit(sweeping) for _ in range(2)]
        try:
            list(pool.map(launching, range(500)))
        finally:
            ended.set()
        assert [sweeper.result() for sweeper in sweepers] == [None, None]
