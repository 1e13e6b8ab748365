"""Files in /dev/shm: those of servers that are gone go, those in use stay."""

import os
import subprocess
import sys
from pathlib import Path

from trellis.server.shared_memory import claim, remove, sweep


def test_only_what_nobody_holds_is_swept_away(tmp_path: Path) -> None:
    ours, theirs = claim("trellis-ours_", tmp_path), claim("trellis-theirs_", tmp_path)
    for name in ("trellis-ours_region", "trellis-theirs_region", "trellis-unlocked_region", "x"):
        (tmp_path / name).touch()
    os.close(theirs)
    assert sweep(tmp_path) == ["trellis-theirs_"]
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"trellis-ours_lock", "trellis-ours_region", "trellis-unlocked_region", "x"}
    os.close(ours)


def test_a_process_that_inherited_the_lock_keeps_the_files(tmp_path: Path) -> None:
    lock = claim("trellis-a_", tmp_path)
    wait = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", wait], stdin=subprocess.PIPE, pass_fds=[lock]
    ) as heir:
        os.close(lock)
        assert sweep(tmp_path) == []
        assert heir.stdin is not None
        heir.stdin.close()
    assert sweep(tmp_path) == ["trellis-a_"]
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_swept_away_can_be_claimed_again(tmp_path: Path) -> None:
    for _ in range(2):
        os.close(claim("trellis-a_", tmp_path))
        assert sweep(tmp_path) == ["trellis-a_"]
    lock = claim("trellis-a_", tmp_path)
    remove("trellis-a_", tmp_path)
    os.close(lock)
    assert list(tmp_path.iterdir()) == []
