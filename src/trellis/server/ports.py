# SPDX-License-Identifier: Apache-2.0
"""Ports: whether they are free, and who has them if not."""

import errno
import itertools
import random
import socket
from pathlib import Path
from typing import Literal, overload

import psutil

from trellis.errors import TrellisError


class PortTaken(TrellisError, RuntimeError):
    """A port that the server needs is in use; the message says by what."""


def check_ports(places: dict[str, tuple[str, int]]) -> None:
    """Raise PortTaken unless every place can be bound, each port a different one.

    `places`: name of a port's option -> address, number.
    """
    seen: dict[int, str] = {}
    for name, (address, port) in places.items():
        if port in seen:
            raise PortTaken(f"--{name} and --{seen[port]} are both {port}; they must differ")
        seen[port] = name
        if not 0 < port < 65536:
            raise PortTaken(f"--{name} {port} is no port; use 1 to 65535")
        if not _free(address, port):
            raise PortTaken(
                f"--{name} {port} is taken{_owner(port)}; stop that, or choose another port"
            )


@overload
def free_ports(count: Literal[3]) -> tuple[int, int, int]: ...
@overload
def free_ports(count: int) -> tuple[int, ...]: ...
def free_ports(count: int) -> tuple[int, ...]:
    """Ports that are free now, for servers that nobody has to know the port of beforehand.

    Below those that the kernel gives to outgoing connections: one of these may be taken by the
    time that the server listens.
    """
    candidates = random.sample(range(10240, _first_outgoing_port()), 1000)
    ports = tuple(itertools.islice((p for p in candidates if _free("127.0.0.1", p)), count))
    if len(ports) < count:
        raise PortTaken(f"no {count} free ports found on 127.0.0.1")
    return ports


def _first_outgoing_port() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        first = 32768
    return first if first > 12288 else 32768


def _free(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise PortTaken(f"cannot listen on {address}:{port}: {error.strerror}") from error
    return True


def _owner(port: int) -> str:
    """Who listens there, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
