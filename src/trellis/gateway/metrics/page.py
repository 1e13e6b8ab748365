# SPDX-License-Identifier: Apache-2.0
"""The page at the metrics port: Triton's figures and ours, in Prometheus' text format.

Triton serves its page at a port of loopback; what it says is passed on as it is, and ours follow.
Where Triton does not answer, ours are shown alone.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from trellis.contract.metrics import Metric
from trellis.gateway.metrics.aliases import aliases, lengths
from trellis.gateway.metrics.registry import Registry
from trellis.gateway.refusals import Refusal
from trellis.gateway.sending import Receive, Scope, Send, send_refusal, send_whole
from trellis.gateway.triton import Triton, TritonLost
from trellis.gateway.worker_mesh import WorkerLost

PATH = "/metrics"
Others = Callable[[], Awaitable[list[list[str]]]]
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

    def __init__(
        self,
        registry: Registry,
        triton: Triton,
        names: Sequence[str] = (),
        others: Others | None = None,
    ) -> None:
        """`triton`: its metrics port; `names`: others' that are wanted.

        `others`: has each of the gateway's other workers write its families, and NVIDIA's.
        """
        self._registry = registry
        self._others_of = others
        self._triton = triton
        self._names = names

    async def text(self) -> str:
        """The page."""
        theirs = await self._theirs()
        mine, nvidia = await self._of_workers()
        return theirs + written([*mine, *self._others(theirs, mine, nvidia)])

    async def families(self) -> list[Family]:
        """Ours, those that the engine hosts report to Triton among them."""
        mine, _ = await self._of_workers()
        return [*mine, *_of_engines(await self._theirs())]

    async def _of_workers(self) -> tuple[list[Family], list[tuple[Metric, Family]]]:
        """The figures of all workers of the gateway, and NVIDIA's. Raises Refusal."""
        mine, nvidia = list(self._registry.collect()), list(self._registry.nvidia())
        if self._others_of is None:
            return mine, nvidia
        try:
            told = await self._others_of()
        except WorkerLost as error:  # without its part a sum would go back
            raise Refusal(503, f"{error}; ask again", retry_after=1) from None
        for text, of_nvidia in told:
            add_families(mine, read_families(text))
            add_families([family for _, family in nvidia], read_families(of_nvidia))
        return mine, nvidia

    def _others(
        self, theirs: str, mine: list[Family], nvidia: list[tuple[Metric, Family]]
    ) -> list[Family]:
        """Families under others' names, but for those that Triton shows by itself."""
        if not self._names:
            return []
        made = [*aliases([*mine, *_of_engines(theirs)], self._names), *lengths(nvidia)]
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
            try:
                body = (await self._figures.text()).encode()
            except Refusal as refusal:
                await send_refusal(send, refusal)
                return
            headers = [(b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode())]
            await send_whole(send, 200, headers, body)


def read_families(text: str) -> list[Family]:
    """What `written` made."""
    return list(text_string_to_metric_families(text))


def add_families(to: list[Family], more: Iterable[Family]) -> None:
    """Add the samples of families to those of the same names: all are counts, sums and gauges."""
    known = {family.name: family for family in to}
    for family in more:
        found = known.get(family.name)
        if found is None:
            known[family.name] = family
            to.append(family)
            continue
        at = {_key(sample): number for number, sample in enumerate(found.samples)}
        for sample in family.samples:
            number = at.get(_key(sample))
            if number is None:
                found.samples.append(sample)
            else:
                value = found.samples[number].value + sample.value
                found.samples[number] = found.samples[number]._replace(value=value)


def _key(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    return sample.name, tuple(sorted(sample.labels.items()))


def written(families: Iterable[Family]) -> str:
    """Prometheus' text of some families."""
    return generate_latest(Collected(families)).decode()


def _of_engines(page: str) -> Iterator[Family]:
    """The families of our engine hosts on Triton's page."""
    mine = "\n".join(line for line in page.splitlines() if "trellis_" in line)
    yield from text_string_to_metric_families(mine + "\n")
