# SPDX-License-Identifier: Apache-2.0
"""Reading a file of a model's folder whole, unless it is too large for what it should be.

A folder may come from anywhere: its `config.json` may be 50 GB of nothing, or a pipe.
"""

import os
import stat
from pathlib import Path

from trellis.errors import TrellisError

MIB = 1 << 20
CONFIG_BYTES = 64 * MIB  # an index of a large checkpoint's weights has some 20 MiB
VOCABULARY_BYTES = 512 * MIB  # the largest published has 35 MiB


class FileRefused(TrellisError, ValueError):
    """A file that is not read; the message names it and says why."""


def read_bounded(path: Path, most: int = CONFIG_BYTES) -> bytes:
    """The bytes of a file, at most so many.

    Raises FileRefused for a larger file and for what is no file, OSError as `open` does.
    """
    with open(path, "rb", opener=_open) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(f"{path}: is no regular file; put the file itself there")
        data = file.read(most + 1) if status.st_size <= most else b""
    if status.st_size > most or len(data) > most:
        raise FileRefused(
            f"{path}: has {status.st_size / MIB:,.0f} MiB, and no such file has more than"
            f" {most // MIB}; download it again"
        )
    return data


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe has no writer
