# SPDX-License-Identifier: Apache-2.0
"""What a process does before it becomes one of a server's."""

import ctypes
import signal

from trellis.server.file_limit import raise_file_limit

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38


def prepare_child() -> None:
    """What a server's process does before it becomes one."""
    raise_file_limit()
    die_with_parent()


def prepare_gateway() -> None:
    """The same for a gateway, which a SIGHUP does not end before it listens to it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    prepare_child()


def prepare_worker() -> None:
    """The same for one of a gateway's workers: nothing is to be asked of it without the first."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel end this process by a signal should its parent be killed outright."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, number)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # no setuid program gives it more rights
