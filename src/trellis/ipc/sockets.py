# SPDX-License-Identifier: Apache-2.0
"""Sockets between the processes of one tritonserver, and from the launcher's to them.

Unix datagram sockets in Linux's abstract namespace, named after the server's process: nothing to
clean up, and two servers never meet. The kernel tells who sent a datagram; what another user sent
is dropped. What concerns one model has an address with its name in it: models never meet, either.
"""

import hashlib
import os
import socket
import struct
from typing import Any

HTTP_COUNTS = "http_counts"  # the purpose of what the gateway counts
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
_ROOM = socket.CMSG_SPACE(_CREDENTIALS.size)


def server_address(purpose: str, server_pid: int) -> bytes:
    """The address for one purpose at the server of that process."""
    namespace = os.stat("/proc/self/ns/pid").st_ino  # a pid means something only within one
    return f"\0trellis.{purpose}.{namespace}.{server_pid}".encode()


def model_address(purpose: str, model: str, server_pid: int) -> bytes:
    """The address for one purpose of one model at the server of that process."""
    name = hashlib.sha256(model.encode()).hexdigest()[:16]  # an address has 107 bytes at most
    return server_address(f"{purpose}.{name}", server_pid)


def datagram_socket() -> socket.socket:
    """A datagram socket that learns who sent what it receives."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return made


def try_bind(unbound: socket.socket, address: bytes) -> bool:
    """Whether the address is this socket's now; what is replaced has it until it is gone."""
    try:
        unbound.bind(address)
    except OSError:
        return False
    return True


def receive(from_socket: socket.socket, size: int) -> tuple[bytes, Any]:
    """A datagram and its sender's address; b"" for one of another user, or longer than `size`.

    Raises OSError as recvmsg does: BlockingIOError where nothing waits.
    """
    data, ancillary, flags, sender = from_socket.recvmsg(size, _ROOM)
    return (data if _is_ours(ancillary, flags) else b""), sender


def receive_into(from_socket: socket.socket, buffer: memoryview) -> int:
    """The size of a datagram that is put into `buffer`, 0 for what `receive` gives b"" for."""
    size, ancillary, flags, _ = from_socket.recvmsg_into([buffer], _ROOM)
    return size if _is_ours(ancillary, flags) else 0


def peer_is_ours(peer: socket.socket) -> bool:
    """Whether the other end of a connected Unix socket is a process of this user, or of root."""
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(data)[1] in (os.geteuid(), 0)


def _is_ours(ancillary: list[Any], flags: int) -> bool:
    """Whether a datagram came whole, from this user or from root."""
    uids = [
        _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[1]
        for level, kind, value in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    ]
    return bool(uids) and uids[0] in (os.geteuid(), 0) and not flags & socket.MSG_TRUNC
