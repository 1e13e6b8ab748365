# SPDX-License-Identifier: Apache-2.0
"""What Linux says of a process: whether it is stopped, what it waits for; and its Python stacks.

Reads /proc alone: models' processes have no psutil.
"""

import contextlib
import faulthandler
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path

STACKS_SIGNAL = signal.SIGUSR2
STOPPED = "T"
STATES = {"R": "running", "S": "sleeping", "D": "waiting for a device", "T": "stopped by a signal"}
WRITE_SECONDS = 0.5  # for a process to write its stacks
_STDERR = 2
_WAIT4 = {"x86_64": "61", "aarch64": "260"}.get(platform.machine())  # the system call's number


def show_stacks_on_signal() -> None:
    """Have this process write the stacks of all its threads into its log when it is asked to.

    The C code of the signal's handler does it, so that a thread that holds Python's lock for ever
    is no obstacle.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # without a standard error
        faulthandler.register(STACKS_SIGNAL, file=_STDERR, all_threads=True, chain=False)


def ask_for_stacks(pid: int) -> None:
    """Have a process write its stacks, and wait a moment for it; nothing where it would end of it.

    One that is stopped writes nothing.
    """
    if state(pid) != STOPPED and _catches(pid, STACKS_SIGNAL):
        with contextlib.suppress(OSError):
            os.kill(pid, STACKS_SIGNAL)
            time.sleep(WRITE_SECONDS)


def state(pid: int) -> str:
    """The letter that Linux has for the state of a process; '' for one that is gone."""
    return _stat(pid)[0]


def describe(pid: int) -> str:
    """The state of a process in words, and what its first thread waits for in the kernel.

    >>> describe(os.getpid())
    'running'
    """
    letter = state(pid)
    if letter == STOPPED:
        return f"{STATES[STOPPED]} (SIGCONT would let it go on)"
    words = STATES.get(letter, f"in the state {letter!r}")
    with contextlib.suppress(OSError):
        waits_in = Path(f"/proc/{pid}/wchan").read_text().strip()
        if waits_in not in ("", "0"):
            words += f", in {waits_in}"
    return words


def stopped_below(pid: int) -> list[int]:
    """The processes that are stopped: of this one and all that it started."""
    return [each for each in (pid, *below(pid)) if state(each) == STOPPED]


def below(pid: int) -> Iterator[int]:
    """All processes that a process started, and those started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parents.setdefault(_stat(int(entry.name))[1], []).append(int(entry.name))
    left = list(parents.get(pid, ()))
    while left:
        yield (found := left.pop())
        left += parents.get(found, ())


def awaited(pid: int) -> set[int]:
    """The processes whose end a process's threads wait for, each by its pid.

    Empty where Linux does not say it: on other machines, or to who may not trace that process.
    """
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError, ValueError):
            call = (task / "syscall").read_text().split()
            if len(call) > 1 and call[0] == _WAIT4:
                found.add(int(call[1], 16))
    return found


def _stat(pid: int) -> tuple[str, int]:
    """The state and the parent of a process; ('', 0) for one that is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return after_name[0], int(after_name[1])
    except (OSError, IndexError, ValueError):
        return "", 0


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False
