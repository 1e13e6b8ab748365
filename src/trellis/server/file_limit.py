# SPDX-License-Identifier: Apache-2.0
"""How many files a server's processes may have open: every connection takes some."""

import contextlib
import resource

# More than that nobody has connections for, and there are programs that go through all of them.
MOST = 2**20
FEW = 1024  # what shells are given; the gateway is left with 448 connections


def reachable_limit() -> int:
    """What the limit is once it was raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if hard == resource.RLIM_INFINITY else max(soft, min(hard, MOST))


def raise_file_limit() -> None:
    """Let this process, and all that it starts, have as many files open as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable_limit(), hard))
