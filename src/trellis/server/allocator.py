# SPDX-License-Identifier: Apache-2.0
"""Another malloc for the server: a quarter of what a chunk costs is allocation, in tritonserver."""

import os
from ctypes.util import find_library
from enum import Enum

from trellis.errors import TrellisError

# Name -> libraries of the system that are it, and the Debian package that has the first.
ALLOCATORS = {
    "jemalloc": (("jemalloc",), "libjemalloc2"),
    "tcmalloc": (("tcmalloc_minimal", "tcmalloc"), "libtcmalloc-minimal4"),
}


class Allocator(str, Enum):
    """What `--allocator` takes."""

    glibc = "glibc"
    jemalloc = "jemalloc"
    tcmalloc = "tcmalloc"


class AllocatorNotFound(TrellisError, RuntimeError):
    """The allocator that was asked for is not on this machine; the message says what to install."""


def available(name: str) -> str:
    """The library of an allocator on this machine, '' if there is none."""
    libraries, _ = ALLOCATORS[name]
    return next((found for found in map(find_library, libraries) if found), "")


def preloaded(name: str) -> dict[str, str]:
    """The environment of a server with this allocator; for glibc it is left as it is.

    The models' processes inherit it, but for that of a Python engine. Raises AllocatorNotFound.
    """
    if name == Allocator.glibc:
        return {}
    library = available(name)
    if not library:
        _, package = ALLOCATORS[name]
        raise AllocatorNotFound(
            f"--allocator {name}: not on this machine; apt-get install {package}"
        )
    preload = f"{library} {os.environ.get('LD_PRELOAD', '')}".strip()
    return {"LD_PRELOAD": preload, "TRELLIS_ALLOCATOR": library}
