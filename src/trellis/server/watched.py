# SPDX-License-Identifier: Apache-2.0
"""Processes whose end is seen at once."""

import contextlib
import os
import select

import psutil


class Watched:
    """Processes whose end wakes a poll, by Linux's pidfds, or is looked for where those are not."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._pids: dict[int, tuple[int, str]] = {}  # fd -> (pid, name)
        self._unpolled: dict[int, tuple[psutil.Process, str]] = {}  # pid -> (process, name)

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._pids:
            os.close(descriptor)

    def add(self, pid: int, name: str) -> None:
        """Watch it, unless it is watched or gone."""
        if pid in self._unpolled or any(pid == known for known, _ in self._pids.values()):
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        except OSError:  # an old kernel, or a container that forbids the call
            with contextlib.suppress(psutil.NoSuchProcess):
                self._unpolled[pid] = (psutil.Process(pid), name)
            return
        self._pids[descriptor] = (pid, name)
        self._poll.register(descriptor, select.POLLIN)

    def names(self) -> dict[int, str]:
        """What is watched, by process."""
        return {
            **dict(self._pids.values()),
            **{pid: name for pid, (_, name) in self._unpolled.items()},
        }

    def forget(self, pid: int) -> None:
        """It ended as it should."""
        self._unpolled.pop(pid, None)
        for descriptor in [each for each, (known, _) in self._pids.items() if known == pid]:
            self._poll.unregister(descriptor)
            os.close(descriptor)
            del self._pids[descriptor]

    def wait(self, seconds: float) -> tuple[int, str] | None:
        """The first that ended, if any did within `seconds`."""
        for descriptor, _ in self._poll.poll(seconds * 1000):
            return self._pids[descriptor]
        for pid, (process, name) in self._unpolled.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return pid, name
        return None
