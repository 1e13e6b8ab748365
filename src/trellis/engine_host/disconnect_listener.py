# SPDX-License-Identifier: Apache-2.0
"""Clients that the HTTP gateway saw leave: which of them, and what is to be done about it.

Triton tells no step of an ensemble that its HTTP client hung up. The gateway does: each request
carries its connection's token (parameter `trellis_client`), and a datagram `gone TOKEN ...` comes
when the connection is gone, perhaps before the request itself.
"""

import json
import logging
import os
import select
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from trellis.ipc.disconnect_sender import MAX_DATAGRAM_BYTES, PARAMETER, PURPOSE
from trellis.ipc.sockets import datagram_socket, model_address, receive, try_bind

REMEMBERED = 16384  # tokens of clients that left, for requests that are still on their way

log = logging.getLogger("trellis.disconnects")


def client_token(request: Any) -> str:
    """The token of the connection that a request came by, or ""."""
    try:
        parameters = request.parameters()
        if PARAMETER not in parameters:  # JSON text, mostly '{}'
            return ""
        token = json.loads(parameters).get(PARAMETER)
    except ValueError:  # a client's parameters may be any bytes
        return ""
    return token if isinstance(token, str) else ""


class DisconnectListener:
    """Listens on a thread; `cancel` is called with the tokens of clients that left."""

    def __init__(self, model: str, cancel: Callable[[frozenset[str]], None]) -> None:
        """`model`: whose requests they are."""
        self._address = model_address(PURPOSE, model, os.getppid())
        self._cancel = cancel
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._closed = threading.Event()
        self._socket = datagram_socket()
        self._socket.setblocking(False)
        self._bound = try_bind(self._socket, self._address)
        if not self._bound:
            log.warning("clients that hang up on HTTP are not noticed yet: the address is taken")
        self._thread = threading.Thread(target=self._run, name="gone-clients", daemon=True)
        self._thread.start()

    def __contains__(self, token: str) -> bool:
        return token in self._gone

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(timeout=2)
        self._socket.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._bound = self._bound or try_bind(self._socket, self._address)
            readable, _, _ = select.select([self._socket], [], [], 0.5)
            if readable:
                self._take(self._tokens())

    def _tokens(self) -> frozenset[str]:
        """What every datagram that waits says."""
        tokens: set[str] = set()
        try:
            while True:
                data, _ = receive(self._socket, MAX_DATAGRAM_BYTES)
                word, *names = data.decode("ascii", "replace").split(" ")
                if word == PURPOSE:
                    tokens.update(filter(None, names))
        except BlockingIOError:
            return frozenset(tokens)

    def _take(self, tokens: frozenset[str]) -> None:
        """Remember first, cancel then: a request that comes between finds its token here."""
        for token in tokens:
            self._gone[token] = None
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        if tokens:
            self._cancel(tokens)
