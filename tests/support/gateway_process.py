"""The gateway as a process of its own, before whatever answers as Triton does."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.gateway_wire import Wire, wait_for
from trellis.server.gateway_settings import IMPORTED_FROM, GatewaySettings
from trellis.server.ports import free_ports


@dataclass(frozen=True)
class Running:
    """A gateway that listens."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def memory(self) -> int:
        """Bytes of it in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def gateway(
    triton_port: int, triton_pid: int = 1, exit_timeout: float = 5.0, **more: Any
) -> Iterator[Running]:
    """A gateway before that port. `more`: of GatewaySettings, `limits` among them."""
    (port,) = free_ports(1)
    address = more.pop("address", "127.0.0.1")
    settings = GatewaySettings(address, port, triton_port, triton_pid, exit_timeout, **more)
    process = subprocess.Popen(settings.command(), cwd=IMPORTED_FROM, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: listens(port))
        yield Running(port, process)
    finally:
        process.kill()
        process.communicate()


def listens(port: int) -> bool:
    """Whether anybody takes connections there."""
    try:
        Wire(port).socket.close()
    except ConnectionRefusedError:
        return False
    return True
