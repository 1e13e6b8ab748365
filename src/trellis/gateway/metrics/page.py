# SPDX-License-Identifier: Apache-2.0
"""The page at the metrics port: Triton's figures and ours, in Prometheus' text format.

Triton serves its page at a port of loopback; what it says is passed on as it is, and ours follow.
Where Triton does not answer, ours are shown alone.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from trellis.gateway.metrics.aliases import aliases, lengths
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.refusals import Refusal
from trellis.gateway.sending import Receive, Scope, Send, send_refusal, send_whole
from trellis.gateway.triton import Triton, TritonLost

PATH = "/metrics"
log = logging.getLogger("trellis.gateway")


class Collected:
    """Families as a registry that can be written as text."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Family]:
        """The families."""
        return iter(self._families)


class Figures:
    """All figures there are: ours, Triton's, and both under others' names."""

    def __init__(self, registry: Registry, triton: Triton, names: Sequence[str] = ()) -> None:
        """`triton`: its metrics port; `names`: others' that are wanted."""
        self._registry = registry
        self._triton = triton
        self._names = names

    async def text(self) -> str:
        """The page."""
        theirs = await self._theirs()
        families = [*self._registry.collect(), *self._others(theirs)]
        return theirs + written(families)

    async def families(self) -> list[Family]:
        """Ours, those that the engine hosts report to Triton among them."""
        return [*self._registry.collect(), *_of_engines(await self._theirs())]

    def _others(self, theirs: str) -> list[Family]:
        """Families under others' names, but for those that Triton shows by itself."""
        if not self._names:
            return []
        known = [*self._registry.collect(), *_of_engines(theirs)]
        made = [*aliases(known, self._names), *lengths(self._registry.nvidia())]
        return [family for family in made if f"# TYPE {family.name} " not in theirs]

    async def _theirs(self) -> str:
        try:
            reply = await self._triton.ask("GET", PATH)
        except TritonLost as error:
            log.warning("Triton's metrics page cannot be read: %s", error)
            return ""
        return reply.body.decode("utf-8", "replace") if reply.status == 200 else ""


class MetricsPage:
    """The ASGI application of the metrics port: one path."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] != PATH:
            await send_refusal(send, Refusal(404, f"there is {PATH} alone"))
        elif scope["method"] != "GET":
            await send_refusal(send, Refusal(405, f"{PATH}: use GET", allow="GET"))
        else:
            body = (await self._figures.text()).encode()
            headers = [(b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode())]
            await send_whole(send, 200, headers, body)


def written(families: Iterable[Family]) -> str:
    """Prometheus' text of some families."""
    return generate_latest(Collected(families)).decode()


def _of_engines(page: str) -> Iterator[Family]:
    """The families of our engine hosts on Triton's page."""
    mine = "\n".join(line for line in page.splitlines() if "trellis_" in line)
    yield from text_string_to_metric_families(mine + "\n")
