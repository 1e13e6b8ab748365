# SPDX-License-Identifier: Apache-2.0
"""Files are read whole up to their bound, and not at all beyond it."""

import os
from pathlib import Path

import pytest

from trellis.bounded_files import FileRefused, read_bounded


def test_a_file_of_just_the_most_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_bounded(tmp_path / "a", 10) == b"x" * 10
    with pytest.raises(FileRefused, match="no such file has more than"):
        read_bounded(tmp_path / "a", 9)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileRefused, match="is no regular file"):
        read_bounded(tmp_path / "pipe")
    with pytest.raises(FileRefused, match="is no regular file"):
        read_bounded(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none")
