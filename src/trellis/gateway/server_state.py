# SPDX-License-Identifier: Apache-2.0
"""What the connections of the gateway share: how many there are, whose, and who waits for whom."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from uvicorn.server import ServerState

from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal
from trellis.gateway.worker_table import CONNECTIONS, AddressShares, Share, WorkerTable

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

    def __init__(self, limits: Limits, most: int, table: WorkerTable | None = None) -> None:
        """`most`: connections that may be open, by the descriptors that there are.

        `table`: of the gateway's workers, if there are several, whose connections count, too.
        """
        super().__init__()
        self._share = table.share(CONNECTIONS) if table else Share()
        self._others = table.addresses() if table else AddressShares()
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
        self._note(connection.address, 1)
        most = self.limits.connections_per_address
        if self._most < self.limits.connections:  # few files may be open: half are for others
            most = min(most, self._most // 2)
        address = connection.address
        mine = len(self.connections)
        over = max(mine - self._most, mine + self._share.others - self.limits.connections)
        if self._addresses[address] + self._others.others(address) > most:
            if over > 0:  # no file is left for those that are told why
                connection.transport.abort()
                return None
            return Refusal(
                429,
                f"more than {most} connections from this address; close some, or use them again",
                close=True,
            )
        if over > 0:
            if over > REFUSED_AT_ONCE:
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
        self._note(connection.address, -1)

    def _note(self, address: str, change: int) -> None:
        """So many more connections of an address."""
        self._addresses[address] += change
        self._others.note(address, change)
        self._share.own += change
        if self._addresses[address] <= 0:
            del self._addresses[address]

    def busy(self, connection: Connection) -> None:
        """A request has come whole."""
        self._waiting.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """It waits for a request."""
        self._waiting[connection] = None
