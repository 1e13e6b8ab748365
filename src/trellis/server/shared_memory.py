# SPDX-License-Identifier: Apache-2.0
"""A server's files in /dev/shm, told apart from those of servers that are no more.

Triton's Python backend leaves its files behind when the server is killed outright together with its
launcher. Each server has a locked file beside them; the lock lasts as long as any process that
inherited it. So files whose lock can be had belong to nobody, in whatever container they were made.
"""

import contextlib
import fcntl
import os
from pathlib import Path

FOLDER = Path("/dev/shm")
PREFIX = "trellis-"
LOCK = "lock"


def claim(prefix: str, folder: Path = FOLDER) -> int:
    """Lock the files of this prefix; the descriptor to be inherited by those who use them.

    Raises OSError if the folder takes no file.
    """
    path = folder / f"{prefix}{LOCK}"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # swept away between opening and locking


def remove(prefix: str, folder: Path = FOLDER) -> None:
    """Remove the files of this prefix."""
    for file in folder.glob(f"{prefix}*"):
        file.unlink(missing_ok=True)


def sweep(folder: Path = FOLDER) -> list[str]:
    """Remove the files of servers that are gone; their prefixes."""
    gone = []
    for lock in folder.glob(f"{PREFIX}*_{LOCK}"):
        with contextlib.suppress(OSError), lock.open("rb") as file:  # another user's, or just gone
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            prefix = lock.name.removesuffix(LOCK)
            remove(prefix, folder)
            gone.append(prefix)
    return gone
