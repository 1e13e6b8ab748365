# SPDX-License-Identifier: Apache-2.0
"""Which connections are taken, and which make room."""

from trellis.gateway.limits import Limits
from trellis.gateway.server_state import GatewayServerState

FILES = 8  # connections that there are files for: half of them for one address


class Client:
    """A connection, as the state sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.aborted = False

    @property
    def transport(self) -> "Client":
        return self

    def abort(self) -> None:
        self.aborted = True


def admit(state: GatewayServerState, address: str) -> tuple[Client, int]:
    """A new connection, and the status of what refuses it, 0 for none."""
    state.connections.add(client := Client(address))
    refusal = state.admit(client)
    return client, refusal.status if refusal is not None else 0


def test_connections_of_an_address_that_are_told_why_take_no_more_files_than_there_are() -> None:
    """They are there until their clients have read it."""
    state = GatewayServerState(Limits(), FILES)
    made = [admit(state, "192.0.2.1") for _ in range(3 * FILES)]
    assert [status for _, status in made[:FILES]] == [0] * (FILES // 2) + [429] * (FILES // 2)
    assert not any(client.aborted for client, _ in made[:FILES])
    assert all(client.aborted for client, _ in made[FILES:])
    for client, _ in made[FILES:]:
        state.forget(client)
        state.connections.discard(client)
    other, status = admit(state, "192.0.2.2")
    assert (status, other.aborted) == (0, False)
    assert made[0][0].aborted, "who waited longest makes room"
