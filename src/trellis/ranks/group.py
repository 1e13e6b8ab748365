# SPDX-License-Identifier: Apache-2.0
"""The ranks of this machine, started together and stopped together."""

import contextlib
import itertools
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from trellis.ranks.options import RUN_RANK
from trellis.server import folder as server_folder
from trellis.server import shared_memory
from trellis.server.child import die_with_parent

POLL_SECONDS = 0.1
LOOKS_PER_TREE = 5  # polls for one look at the whole tree, which costs more
FAILED_GRACE = 5.0  # seconds to stop in, where nobody can be answered any more


class RankGroup:
    """Processes that are ranks, or an mpirun that starts them. Use as a context manager.

    `name` begins the names of every temporary file of theirs: what a killed one left is removed.
    `asked`: a word in the commands of the processes that are asked to stop, and stop the rest.
    """

    def __init__(
        self,
        commands: Sequence[tuple[list[str], Mapping[str, str]]],
        name: str,
        grace: float,
        asked: str = RUN_RANK,
    ) -> None:
        self._name = name
        self._asked = asked
        self._grace = grace
        self._processes: list[subprocess.Popen[bytes]] = []
        self._seen: set[psutil.Process] = set()
        try:
            for command, environment in commands:
                self._processes.append(_start(command, environment))
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "RankGroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, stopping: Callable[[], bool]) -> int | None:
        """Wait until `stopping()` (None), all ended well (0), or one did not (its status).

        Remembers every process that it saw: what an mpirun leaves behind when it dies has no
        parent to be found by.
        """
        for look in itertools.count():
            if stopping():
                break
            if look % LOOKS_PER_TREE == 0:
                self._seen.update(self._tree())
            statuses = [process.poll() for process in self._processes]
            failed = [status for status in statuses if status]
            if failed:
                self._grace = FAILED_GRACE
                return failed[0]
            if all(status == 0 for status in statuses):
                return 0
            time.sleep(POLL_SECONDS)
        return None

    def stop(self) -> None:
        """Ask every rank to stop, then end what is left of them. Safe to call twice."""
        self._seen.update(self._tree())
        tree = [process for process in self._seen if process.is_running()]
        for process in tree:
            if self._asked in _command(process):
                _quietly(process.terminate)
        psutil.wait_procs(tree, timeout=self._grace)
        self._end(signal.SIGTERM, 3.0)  # an mpirun, which ends ranks on other machines
        tree = [*{*tree, *self._tree()}]
        self._end(signal.SIGKILL, 3.0)
        for process in tree:
            _quietly(process.kill)
        psutil.wait_procs(tree, timeout=3.0)
        self._clean()

    def _tree(self) -> list[psutil.Process]:
        """All that runs, the launched ones and below them."""
        found = []
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                top = psutil.Process(process.pid)
                found += [top, *top.children(recursive=True)]
        return found

    def _end(self, number: signal.Signals, seconds: float) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)
        end = time.monotonic() + seconds
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))

    def _clean(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"trellis-{self._name}*"):
            server_folder.remove(folder)
        shared_memory.remove(f"trellis-{self._name}")


def _start(command: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:3])
    except psutil.Error:
        return ""


def _quietly(action: Callable[[], object]) -> None:
    with contextlib.suppress(psutil.Error):
        action()
