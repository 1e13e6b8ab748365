# SPDX-License-Identifier: Apache-2.0
"""Around every request: its record is kept, counted at its end, and written to the log."""

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trellis.gateway.access.keys import HEALTH_PATHS
from trellis.gateway.metrics.record import RECORD, Record
from trellis.gateway.metrics.registry import Registry

Hook = Callable[[Scope, Record], None]


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

        self._registry.begin(record)
        try:
            self._begun(scope, record)
            await self._app(scope, receive, noted)
        finally:
            record.end()
            self._registry.end(record)
            for ended in self._ended:
                ended(scope, record)
