# SPDX-License-Identifier: Apache-2.0
"""Files written whole or not at all, and files shared instead of copied."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from rich.progress import wrap_file

from trellis.bounded_files import read_bounded

CopyMode = Literal["link", "copy", "symlink"]
SHOW_PROGRESS_BYTES = 1 << 28


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file's content in one step; a crash leaves the old content.

    `mode`: of a new file; one that is there keeps its own.
    """
    mode = path.stat().st_mode & 0o777 if path.exists() else mode
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in a small JSON file.

    Raises ValueError naming the file and what is wrong in it, OSError if it cannot be opened.
    """
    data = read_bounded(path)
    try:
        value = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError(f"{path}: not readable as JSON: it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: not an object but {type(value).__name__}")
    return value


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same bytes; a copy where the file system cannot have one."""
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def place(source: Path, target: Path, mode: CopyMode, earlier: Path | None = None) -> None:
    """Bring a file to another place: as a hard link, a copy or a symbolic link.

    A hard link becomes a copy where the file system cannot have one. Copies of more than 256 MiB
    show their progress. `earlier` may be a copy made before: it is linked to if it is still one.
    """
    source = source.resolve()
    if mode == "symlink":
        target.symlink_to(source)
        return
    if mode == "link":
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    if earlier is not None and _same(source, earlier):
        os.link(earlier, target)
        return
    _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    size = source.stat().st_size
    if size < SHOW_PROGRESS_BYTES:
        shutil.copy2(source, target)
        return
    with (
        source.open("rb") as raw,
        target.open("wb") as sink,
        wrap_file(raw, total=size, description=source.name) as shown,
    ):
        shutil.copyfileobj(shown, sink, 1 << 22)
    shutil.copystat(source, target)


def _same(source: Path, copy: Path) -> bool:
    """Whether a file is an unchanged copy: another file, of the same size and time."""
    if not copy.is_file() or copy.is_symlink() or copy.samefile(source):
        return False
    a, b = source.stat(), copy.stat()
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)
