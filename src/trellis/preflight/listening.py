# SPDX-License-Identifier: Apache-2.0
"""Ports: free, and different from each other."""

from collections.abc import Iterator
from dataclasses import dataclass

from trellis.preflight.check import Check
from trellis.server.ports import PortTaken, check_ports


@dataclass(frozen=True)
class Listening:
    """Where the server is to listen."""

    address: str = "127.0.0.1"
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002

    @property
    def ports(self) -> dict[str, int]:
        """Numbers by the name of the option that sets each."""
        return {"http_port": self.http, "grpc_port": self.grpc, "metrics_port": self.metrics}


def check_listening(listening: Listening) -> Iterator[Check]:
    """Each port can be bound."""
    needed = f"free on {listening.address}"
    try:
        check_ports(listening.address, listening.ports)
        yield Check("ports", ", ".join(map(str, listening.ports.values())), needed, True)
    except PortTaken as error:
        cause, _, remedy = str(error).partition("; ")
        yield Check("ports", cause, needed, False, remedy)
