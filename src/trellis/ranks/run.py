# SPDX-License-Identifier: Apache-2.0
"""One rank: a tritonserver, its log prefixed with the rank, watched until it ends.

Started by the mpirun that `launch_triton_server.py` starts, with the server's settings as
JSON. Exit status: 0 if it was asked to stop or rank 0 left, 1 if anything of this rank died.
"""

import collections
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from trellis.repository.manifest import model_names
from trellis.server.access_settings import AccessSettings
from trellis.server.process import Server
from trellis.server.settings import ServerFailed, ServerSettings
from trellis.server.signals import stop_signals

LAST_LINES = 20
LEAVING_SECONDS = 3.0
RANK_VARIABLE = "OMPI_COMM_WORLD_RANK"


class PrefixedLog:
    """Passes a server's output on with the rank before each line; keeps the last of it."""

    def __init__(self, rank: int) -> None:
        self.prefix = f"[rank {rank}] "
        self.last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        read, write = os.pipe()
        self.output: IO[bytes] = os.fdopen(write, "wb")
        self._thread = threading.Thread(
            target=self._run, args=(os.fdopen(read, "rb"),), daemon=True
        )
        self._thread.start()

    def _run(self, source: IO[bytes]) -> None:
        for line in source:
            text = line.decode("utf-8", "replace").rstrip("\n")
            self.last.append(text)
            self.say(text)

    def say(self, text: str) -> None:
        """One line, written whole: other ranks write to the same place."""
        os.write(2, f"{self.prefix}{text}\n".encode())

    def close(self) -> None:
        """Pass on what is left."""
        self.output.close()
        self._thread.join(timeout=1)


class _Stopped(Exception):
    """Asked to stop before the server was ready."""


def run(settings: ServerSettings, log: PrefixedLog) -> None:
    """Serve or follow until asked to stop. Raises ServerFailed if anything dies."""
    with stop_signals() as stopped, Server(settings, log.output) as server:
        if settings.serves and not _wait_ready(server, log, lambda: bool(stopped)):
            return
        died = server.watch(lambda: bool(stopped))
        if died is None:
            return
        if not settings.serves and _ends_well(server):
            log.say("rank 0 left, and this rank after it")
            return
        server.stop(grace=0)
        raise ServerFailed(died)


def _ends_well(server: Server) -> bool:
    """Whether a server that lost something is ending as it should: models' processes end first."""
    try:
        return server.process.wait(LEAVING_SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False


def _wait_ready(server: Server, log: PrefixedLog, stopped: Callable[[], bool]) -> bool:
    """True once every model is ready, which takes every rank; False if asked to stop before."""

    def look(_: float) -> None:
        if stopped():
            raise _Stopped

    try:
        seconds = server.wait_ready(look)
    except _Stopped:
        return False
    names = model_names(server.settings.model_repo)
    urls = " ".join(f"{server.settings.url}/v2/models/{name}" for name in names)
    log.say(f"all ranks ready after {seconds:.1f} s: {urls}")
    return True


def read_settings(text: str) -> ServerSettings:
    """The settings that the launcher wrote."""
    values = json.loads(text)
    for name in ("model_repo", "log_file"):
        values[name] = values[name] and Path(values[name])
    for name in ("extra", "models"):
        values[name] = tuple(values[name])
    values["access"] = AccessSettings.of(values["access"])
    return ServerSettings(**values)


def main() -> int:
    """Run this rank; the exit status."""
    rank = int(os.environ[RANK_VARIABLE])
    log = PrefixedLog(rank)
    try:
        run(read_settings(sys.argv[1]), log)
        return 0
    except Exception as error:
        log.close()
        last = list(log.last)
        log.say(f"failed: {error}; the last lines of its log:")
        for line in last:
            log.say(f"  | {line}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
