# SPDX-License-Identifier: Apache-2.0
"""Telling the engine host of a server which clients are gone, so that their requests stop.

Triton's HTTP front end does not notice a client that hangs up on an ensemble. Who stands before it
does: it sends every request with the parameter `trellis_client`, a token of that connection, and
says here when the connection is gone. See `engine_host/disconnect_listener.py`, which
listens, and takes a datagram `gone TOKEN TOKEN ...` from processes of its own user only.
"""

import os
import socket

PARAMETER = "trellis_client"
MAX_DATAGRAM_BYTES = 8192
SEND_SECONDS = 0.2  # the listener's queue is short, and a thread empties it


class DisconnectSender:
    """The way to one server's engine host. Any thread may use it."""

    def __init__(self, server_pid: int) -> None:
        """`server_pid`: of the process tritonserver, in this process's pid namespace."""
        namespace = os.stat("/proc/self/ns/pid").st_ino
        self._address = f"\0trellis.gone.{namespace}.{server_pid}".encode()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_SECONDS)

    def tell(self, *tokens: str) -> bool:
        """Say that the connections of these tokens are gone; False if nobody was reached.

        Never raises. Waits up to 0.2 seconds where the listener is behind.
        """
        message = " ".join(("gone", *tokens)).encode()
        try:
            self._socket.sendto(message[:MAX_DATAGRAM_BYTES], self._address)
        except OSError:  # an engine without a host of ours, or a server that starts or ends
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
