# SPDX-License-Identifier: Apache-2.0
"""More room in the sockets over which Triton wakes the threads of its HTTP server.

A response reaches its connection's thread as a message on a Unix socket that does not block, and
Triton does not look whether it could be sent: where some 277 wait (the kernel's usual 212,992
bytes) the next is lost, and with it the end of a stream, or the sign that it is over. It takes a
thread that is kept from its work, say by another client's body of 100 MB. The launcher, being
Triton's parent, may borrow those sockets and give them more room.
"""

import contextlib
import ctypes
import os
import socket
import sys

PIDFD_GETFD = 438  # the number of the system call, on every architecture
SO_SNDBUFFORCE = 32  # beyond net.core.wmem_max, for who may administer the network
ROOM = 64 << 20  # bytes of kernel memory at most, each, for 87,000 messages; taken as they come
ENOUGH = 1 << 20
NOT_WIDENED = (
    "Triton's HTTP threads keep their small wake-up sockets: under load a stream may be cut"
)
REMEDY = "sysctl net.core.wmem_default=8388608 net.core.wmem_max=8388608 before the server starts"
_LIBC = ctypes.CDLL(None, use_errno=True)


def give_room(pid: int) -> int:
    """`widen`, which says what is missing where it cannot; 0 then."""
    try:
        room = widen(pid)
    except OSError as error:
        print(f"{NOT_WIDENED} (pidfd_getfd: {error.strerror}; {REMEDY})", file=sys.stderr)
        return 0
    if 0 < room < ENOUGH:
        print(f"{NOT_WIDENED} (net.core.wmem_max; {REMEDY})", file=sys.stderr)
    return room


def widen(pid: int) -> int:
    """Give the wake-up sockets of a process room; the least that one of them has now, in bytes.

    Any stream socket of a Unix pair is taken for one, which does no harm. Raises OSError where the
    kernel (before 5.6) or a container's rules do not let a process look at its child's sockets.
    """
    least = 0
    handle = os.pidfd_open(pid)
    try:
        for descriptor in map(int, os.listdir(f"/proc/{pid}/fd")):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("socket:"):
                    room = _widen(handle, descriptor)
                    least = min(least or room, room or least)
    finally:
        os.close(handle)
    return least


def _widen(handle: int, descriptor: int) -> int:
    borrowed = _LIBC.syscall(PIDFD_GETFD, handle, descriptor, 0)
    if borrowed < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    with socket.socket(fileno=borrowed) as item:
        if not _paired(item):
            return 0
        with contextlib.suppress(PermissionError):
            item.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, ROOM // 2)
            return item.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        item.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM // 2)  # as far as it goes
        return item.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def _paired(item: socket.socket) -> bool:
    """Whether it is one end of a pair without a name."""
    if item.family != socket.AF_UNIX or item.type != socket.SOCK_STREAM:
        return False
    try:
        return bool(item.getsockname() == item.getpeername() == "")
    except OSError:  # it listens, or is not connected
        return False
