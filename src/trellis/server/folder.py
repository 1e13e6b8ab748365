# SPDX-License-Identifier: Apache-2.0
"""A server's folder in the temporary directory, told apart from those of servers that are no more.

A launcher that is killed outright leaves its folder behind. In each lies a file that is locked as
long as any process that inherited it; the file gets its name once it is locked, so that there is no
moment at which a new folder looks abandoned. What has no such file was not made here, and stays.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

PREFIX = "trellis-"
LOCK = "server.lock"
YOUNG_SECONDS = 60.0  # no need to hurry
LINK = "models"
# Triton's Python backend starts its stubs by a line of shell, unquoted.
PLAIN = re.compile(r"[A-Za-z0-9_./+,:@%=-]+")
PLAIN_FOLDER = Path("/tmp")


def make(name: str = "") -> Path:
    """A new folder `trellis-NAME...`. Raises OSError where the temporary directory takes none."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}", dir=temporary_folder()))


def temporary_folder() -> Path:
    """The temporary directory; /tmp where the path of that one is not plain."""
    folder = Path(tempfile.gettempdir())
    return folder if is_plain(folder) else PLAIN_FOLDER


def is_plain(path: Path) -> bool:
    """Whether a path has no space and no other character that Triton's stubs cannot take.

    >>> is_plain(Path("/srv/my models"))
    False
    """
    return PLAIN.fullmatch(str(path)) is not None


def plain_path(folder: Path, model_repo: Path) -> Path:
    """A path of the repository that Triton's stubs can take: its own, or a link in `folder`."""
    real = model_repo.resolve()
    if is_plain(real):
        return real
    link = folder / LINK
    link.symlink_to(real, target_is_directory=True)
    return link


def claim(folder: Path) -> int:
    """Mark a folder as in use; the descriptor to be inherited by those who use it.

    Raises OSError where files cannot be locked, or the disk is full.
    """
    unlocked = folder / f"{LOCK}.new"
    descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        unlocked.rename(folder / LOCK)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove(folder: Path) -> None:
    """Remove a folder as far as that can be done, its lock last: half of one is found again."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path | None = None) -> list[Path]:
    """Remove this user's folders whose server is gone; which they were."""
    gone = []
    for folder in (parent or temporary_folder()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # no lock in it, held, or just gone
            if _sweep(folder):
                gone.append(folder)
    return gone


def _sweep(folder: Path) -> bool:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return False
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if time.time() - os.fstat(lock).st_mtime < YOUNG_SECONDS:
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(folder)
    finally:
        os.close(lock)
    return True
