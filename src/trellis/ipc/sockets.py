# SPDX-License-Identifier: Apache-2.0
"""Sockets between the processes of one tritonserver, and from the launcher's to them.

Unix datagram sockets in Linux's abstract namespace, named after the server's process: nothing to
clean up, and two servers never meet. The kernel tells who sent a datagram; what another user sent
is dropped. `disconnects.py` computes the same names from outside.
"""

import os
import socket
import struct
from typing import Any

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def server_address(purpose: str, server_pid: int) -> bytes:
    """The address for one purpose at the server of that process."""
    namespace = os.stat("/proc/self/ns/pid").st_ino  # a pid means something only within one
    return f"\0trellis.{purpose}.{namespace}.{server_pid}".encode()


def datagram_socket() -> socket.socket:
    """A datagram socket that learns who sent what it receives."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return made


def receive(from_socket: socket.socket, size: int) -> tuple[bytes, Any]:
    """A datagram and its sender's address; b"" for one of another user, or longer than `size`.

    Raises OSError as recvmsg does: BlockingIOError where nothing waits.
    """
    data, ancillary, flags, sender = from_socket.recvmsg(size, socket.CMSG_SPACE(_CREDENTIALS.size))
    uids = [
        _CREDENTIALS.unpack(value[: _CREDENTIALS.size])[1]
        for level, kind, value in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    ]
    ours = bool(uids) and uids[0] in (os.geteuid(), 0)
    return (data if ours and not flags & socket.MSG_TRUNC else b""), sender
