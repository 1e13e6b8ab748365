# SPDX-License-Identifier: Apache-2.0
"""Ends what a library started, however its process ends.

A library with workers of its own leaves them behind when its process is killed: they wait for
messages, and hold their GPU. So the engine runs in a child of a keeper, which adopts every orphan
below it (Linux: PR_SET_CHILD_SUBREAPER), and kills all once the engine or the host is gone.
"""

import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import NoReturn

from trellis.ipc.library_memory import mapped, remove
from trellis.ipc.process_state import below

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def keep() -> None:
    """Fork: returns in the child, where the engine goes on; this process keeps it.

    Call it before any thread is started.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    me, host = os.getpid(), os.getppid()
    child = os.fork()
    if child:
        _watch(child, host, libc)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != me:
        os._exit(1)


def _watch(child: int, host: int, libc: ctypes.CDLL) -> NoReturn:
    """Wait for the engine or the host to end, then leave nothing behind."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 65536 else 65536)
    signal.signal(signal.SIGTERM, lambda *_: _end(1))
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != host:
        _end(1)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            _end(code if code >= 0 else 128 - code)


def _end(code: int) -> NoReturn:
    """Kill the children, then those that they leave, until there are none; and their files."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    files = mapped(below(os.getpid()))
    with contextlib.suppress(ChildProcessError):
        while True:
            for process in children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            os.waitpid(-1, 0)
    remove(files)
    os._exit(code)


def children(parent: int) -> list[int]:
    """The processes that a process started or adopted, and that have not been waited for."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(after_name[1]) == parent:
                    found.append(int(entry.name))
    return found
