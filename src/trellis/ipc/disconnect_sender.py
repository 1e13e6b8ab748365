# SPDX-License-Identifier: Apache-2.0
"""Telling the engine hosts of a server which clients are gone, so that their requests stop.

Triton's HTTP front end does not notice a client that hangs up on an ensemble. Who stands before it
does: it sends every request with the parameter `trellis_client`, a token of that connection, and
says here when the connection is gone. See `engine_host/disconnect_listener.py`, which
listens, and takes a datagram `gone TOKEN TOKEN ...` from processes of its own user only.
"""

import socket
from collections.abc import Iterable

from trellis.ipc.sockets import model_address

PARAMETER = "trellis_client"
PURPOSE = "gone"
MAX_DATAGRAM_BYTES = 8192
SEND_SECONDS = 0.2  # the listener's queue is short, and a thread empties it


class DisconnectSender:
    """The way to one server's engine hosts. Any thread may use it."""

    def __init__(self, server_pid: int) -> None:
        """`server_pid`: of the process tritonserver, in this process's pid namespace."""
        self.server_pid = server_pid
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SEND_SECONDS)

    def tell(self, model: str, tokens: Iterable[str]) -> bool:
        """Tell a model that the connections of these tokens are gone; False if it was not reached.

        Never raises. Waits up to 0.2 seconds where the listener is behind.
        """
        message = " ".join((PURPOSE, *tokens)).encode()
        address = model_address(PURPOSE, model, self.server_pid)
        try:
            self._socket.sendto(message[:MAX_DATAGRAM_BYTES], address)
        except OSError:  # an engine without a host of ours, or a server that starts or ends
            return False
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
