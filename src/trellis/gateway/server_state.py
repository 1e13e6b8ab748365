# SPDX-License-Identifier: Apache-2.0
"""What the connections of the gateway share: how many there are, whose, and which are idle."""

import asyncio
from collections import Counter, OrderedDict
from typing import Any, Protocol

from uvicorn.server import ServerState

from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal

REFUSED_AT_ONCE = 256  # connections beyond the limit that are told why they are closed


class Connection(Protocol):
    """A client's connection, as all of them together see it."""

    transport: asyncio.Transport
    address: str


class GatewayServerState(ServerState):
    """uvicorn's, with counts of connections."""

    connections: set[Any]

    def __init__(self, limits: Limits, most: int) -> None:
        """`most`: connections that may be open, by the descriptors that there are."""
        super().__init__()
        self.limits = limits
        self.draining = False  # this server was asked to stop
        self._most = most
        self._addresses: Counter[str] = Counter()
        self._idle: OrderedDict[Connection, None] = OrderedDict()  # the longest first

    def admit(self, connection: Connection) -> Refusal | None:
        """Count a new connection; why it is not served, if it is not.

        Where there are too many, the one that has been idle for longest makes room.
        """
        self._addresses[connection.address] += 1
        if self._addresses[connection.address] > self.limits.connections_per_address:
            return Refusal(
                429,
                f"more than {self.limits.connections_per_address} connections from this address;"
                " close some, or use them again",
                close=True,
            )
        if len(self.connections) > self._most:
            if len(self.connections) > self._most + REFUSED_AT_ONCE:
                connection.transport.abort()
                return None
            if not self._idle:
                return Refusal(503, "too many connections; try again", close=True)
            oldest, _ = self._idle.popitem(last=False)
            oldest.transport.abort()
        self._idle[connection] = None
        return None

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._idle.pop(connection, None)
        self._addresses[connection.address] -= 1
        if self._addresses[connection.address] <= 0:
            del self._addresses[connection.address]

    def busy(self, connection: Connection) -> None:
        """The head of a request has come."""
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It waits for a request."""
        self._idle[connection] = None
