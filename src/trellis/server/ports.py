# SPDX-License-Identifier: Apache-2.0
"""Ports: whether they are free, and who has them if not."""

import errno
import itertools
import random
import socket
from collections import deque
from pathlib import Path
from typing import Literal, overload

import psutil

from trellis.errors import TrellisError

# Ports given out lately, each bound until this process ends or has given out as many again, so that
# servers that start at the same time, of this process or another, get different ones.
_KEPT = 128
_given: deque[socket.socket] = deque()


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
    """Ports of 127.0.0.1 that are free now, for servers whose port nobody has to know beforehand.

    They stay bound here, without listening. Who sets SO_REUSEADDR or SO_REUSEPORT, as servers do,
    can listen there; another call, of any process of this machine, does not get them. They lie
    below those that the kernel gives to outgoing connections: one of these may be taken by the time
    that the server listens.

    Raises:
        PortTaken: so many are not free.
    """
    candidates = random.sample(range(10240, _first_outgoing_port()), 1000)
    bound = filter(None, map(_hold, candidates))
    taken = list(itertools.islice(bound, count))
    _given.extend(taken)
    while len(_given) > _KEPT:
        _given.popleft().close()
    if len(taken) < count:
        raise PortTaken(f"no {count} free ports found on 127.0.0.1")
    return tuple(one.getsockname()[1] for one in taken)


def _hold(port: int) -> socket.socket | None:
    """A socket that is bound to it and that a listening one may join; None if it is taken."""
    held = socket.socket()
    try:
        held.bind(("127.0.0.1", port))  # without either option: not beside another held one
    except OSError:
        held.close()
        return None
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        held.setsockopt(socket.SOL_SOCKET, option, 1)
    return held


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
