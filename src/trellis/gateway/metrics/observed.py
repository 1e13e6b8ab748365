# SPDX-License-Identifier: Apache-2.0
"""Around every request: its record is kept, counted at its end, and written to the log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trellis.gateway.access.keys import HEALTH_PATHS
from trellis.gateway.metrics.record import RECORD, Record
from trellis.gateway.metrics.registry import Registry

Hook = Callable[[Scope, Record], None]


@contextmanager
def observed(
    registry: Registry, begun: Hook, ended: tuple[Hook, ...], scope: Scope, record: Record
) -> Iterator[None]:
    """While a request is answered; hooks as Observed has them."""
    registry.begin(record)
    try:
        begun(scope, record)
        yield
    finally:
        record.end()
        registry.end(record)
        for hook in ended:
            hook(scope, record)


class Observed:
    """The outermost layer of the application."""

    def __init__(
        self,
        app: ASGIApp,
        registry: Registry,
        begun: Hook,
        ended: tuple[Hook, ...] = (),
    ) -> None:
        """`begun`: called with every request; `ended`: once it has ended and was counted."""
        self._begun = begun
        self._app = app
        self._registry = registry
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[RECORD] = record = Record()
        record.probes = scope.get("path") in HEALTH_PATHS

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
            await send(message)

        with observed(self._registry, self._begun, self._ended, scope, record):
            await self._app(scope, receive, noted)
