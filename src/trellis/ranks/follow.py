# SPDX-License-Identifier: Apache-2.0
"""A host above the first: the library's workers, without a server, for as long as the first is."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable

from trellis.ranks.peers import Peers
from trellis.ranks.workers import Workers, worker_command
from trellis.server.child import die_with_parent
from trellis.server.settings import ServerFailed, ServerSettings
from trellis.server.triton import serving_python

POLL_SECONDS = 0.2
END_SECONDS = 5.0  # for the workers' keeper to end them


def follow(settings: ServerSettings, workers: Workers, stopping: Callable[[], bool]) -> str:
    """Run this host's workers until asked to stop or the first host left; says which.

    Raises ServerFailed if the workers or another host died.
    """
    command = worker_command(workers, serving_python(settings.tritonserver))
    with Peers(workers.topology) as peers, _Workers(command) as process:
        while not peers.why:
            if stopping():
                peers.say("stopped")
                _await_first_host(peers, settings.stop_seconds + END_SECONDS)
                return "stopped"
            if process.poll() is not None:
                raise ServerFailed("the workers of this host died (their last lines are above)")
            time.sleep(POLL_SECONDS)
        if not peers.orderly:
            raise ServerFailed(f"{peers.why}; ended the workers of this one")
        return peers.why


def _await_first_host(peers: Peers, seconds: float) -> None:
    """What runs is answered by the first host, which needs these workers for it."""
    end = time.monotonic() + seconds
    while peers.joined and not peers.why and time.monotonic() < end:
        time.sleep(POLL_SECONDS)


class _Workers:
    """The process that keeps the workers. Use as a context manager."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent,
            env=dict(os.environ),
        )

    def __enter__(self) -> "subprocess.Popen[bytes]":
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # its keeper kills all below
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.wait()
