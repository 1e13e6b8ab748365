# SPDX-License-Identifier: Apache-2.0
"""The gateway's other processes, which its first one starts, watches and ends.

Each listens on the same ports (SO_REUSEPORT: the kernel gives each connection to one of them). To
the launcher all of them are one process, the first: the others end with it, whatever ends it, and
it ends if one of them does.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable

from trellis.gateway.worker_table import WorkerTable, iterate_others
from trellis.ipc.heartbeats import heartbeats
from trellis.server.child import prepare_worker
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings

END_SECONDS = 2.0  # for the others to end once what they had in flight has
LOOK_SECONDS = 0.05
log = logging.getLogger("trellis.gateway")


class Workers:
    """Those beside the first."""

    def __init__(self, settings: GatewaySettings, table: WorkerTable) -> None:
        """Start them. Raises OSError."""
        beats = heartbeats()
        self._processes = [
            subprocess.Popen(
                settings.command(),
                cwd=IMPORTED_FROM,
                env={**os.environ, **beats.environment(), **table.environment(number)},
                stdin=subprocess.DEVNULL,
                preexec_fn=prepare_worker,
                pass_fds=(beats.descriptor, table.descriptor),
            )
            for number in iterate_others(table)
        ]
        self._ending = False

    def watch(self, died: Callable[[str], None]) -> None:
        """Have `died` called in the running loop, with what is to be said, if one ends."""
        loop = asyncio.get_running_loop()

        def wait(process: "subprocess.Popen[bytes]") -> None:
            status = process.wait()
            if not self._ending:
                what = f"a worker of the gateway (pid {process.pid}) ended with status {status}"
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(died, what)

        for process in self._processes:
            threading.Thread(target=wait, args=(process,), name="worker", daemon=True).start()

    @property
    def running(self) -> bool:
        """Whether any of them has not ended yet."""
        return any(each.poll() is None for each in self._processes)

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        self._ending |= number == signal.SIGTERM
        for process in self._processes:
            process.send_signal(number)

    async def ended(self, seconds: float) -> None:
        """Wait until all are gone, but no longer; then end them at once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self.running and loop.time() < end:
            await asyncio.sleep(LOOK_SECONDS)
        for process in self._processes:
            process.kill()
