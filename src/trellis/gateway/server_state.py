# SPDX-License-Identifier: Apache-2.0
"""What the connections of the gateway share: how many there are, whose, and who waits for whom."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.server import ServerState

from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal

REFUSED_AT_ONCE = 256  # connections beyond the limit that are told why they are closed


class Closable(Protocol):
    """What can be ended at once."""

    def abort(self) -> None:
        """Close it, whatever it waits for."""


class Connection(Protocol):
    """A client's connection, as all of them together see it."""

    @property
    def transport(self) -> Closable:
        """The connection itself."""

    address: str


class GatewayServerState(ServerState):
    """uvicorn's, with counts of connections."""

    connections: set[Any]

    def __init__(self, limits: Limits, most: int) -> None:
        """`most`: connections that may be open, by the descriptors that there are."""
        super().__init__()
        self.limits = limits
        self.draining = False  # this server was asked to stop
        # Told of what is refused before the application sees it.
        self.refused: Callable[[Refusal], None] = lambda _: None
        self._most = most
        self._addresses: Counter[str] = Counter()
        # Those that wait for their client, for a request or the rest of one: the longest first.
        self._waiting: OrderedDict[Connection, None] = OrderedDict()

    def admit(self, connection: Connection) -> Refusal | None:
        """Count a new connection; why it is not served, if it is not.

        Where there are too many, the one that has waited longest for its client makes room.
        """
        self._addresses[connection.address] += 1
        most = self.limits.connections_per_address
        if self._most < self.limits.connections:  # few files may be open: half are for others
            most = min(most, self._most // 2)
        if self._addresses[connection.address] > most:
            return Refusal(
                429,
                f"more than {most} connections from this address; close some, or use them again",
                close=True,
            )
        if len(self.connections) > self._most:
            if len(self.connections) > self._most + REFUSED_AT_ONCE:
                connection.transport.abort()
                return None
            if not self._waiting:
                return Refusal(503, "too many connections; try again", close=True)
            oldest, _ = self._waiting.popitem(last=False)
            oldest.transport.abort()
        self._waiting[connection] = None
        return None

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._waiting.pop(connection, None)
        self._addresses[connection.address] -= 1
        if self._addresses[connection.address] <= 0:
            del self._addresses[connection.address]

    def busy(self, connection: Connection) -> None:
        """A request has come whole."""
        self._waiting.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It waits for a request."""
        self._waiting[connection] = None
