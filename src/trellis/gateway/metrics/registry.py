# SPDX-License-Identifier: Apache-2.0
"""The figures of all requests over HTTP. A request adds its own at its end, or when somebody looks.

Labels are bounded: models and adapters that the repository has, endpoints of the table, reasons and
statuses of the gateway's own. No client can make a series.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from trellis.contract import metrics as named
from trellis.contract.metrics import INTER_TOKEN, METRICS, NVIDIA_TOKENS, Metric
from trellis.gateway.metrics.meter import Meter, new_gaps
from trellis.gateway.metrics.record import GONE, REASONS, Record
from trellis.gateway.refusals import Refusal

disable_created_metrics()  # type: ignore[no-untyped-call]
# Kept as plain numbers, and read when somebody looks.
_READ = (named.INTER_TOKEN_LATENCY, named.HTTP_IN_FLIGHT)
SEQUENCE_LABELS = named.INTER_TOKEN_LATENCY.labels


@dataclass
class Gaps:
    """The times between chunks of one model and adapter: a number a bucket, and their sum."""

    buckets: list[int] = field(default_factory=new_gaps)
    seconds: float = 0.0


class Registry:
    """Counts requests. All of it runs in the gateway's loop."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names`: others' that are wanted, of trellis.contract.metrics.NAMES."""
        self._registry = CollectorRegistry()
        mine = [each for each in METRICS if each.where == "gateway" and each not in _READ]
        self._made: dict[Metric, Any] = {each: self._new(each) for each in mine}
        self._nvidia = [
            (each, Histogram(each.nvidia, each.help, ("model",), buckets=NVIDIA_TOKENS,
                             registry=None))
            for each in (named.REQUEST_PROMPT, named.REQUEST_GENERATION)
            if "nvidia" in names
        ]  # fmt: skip
        self._gaps: dict[tuple[str, str], Gaps] = {}
        self._live: set[Record] = set()
        self._seen: set[str] = set()  # models that had a request

    def _new(self, metric: Metric) -> Any:
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, metric.labels, registry=self._registry)
        return Histogram(
            metric.name,
            metric.help,
            metric.labels,
            buckets=metric.buckets,
            registry=self._registry,
        )

    # A request.

    def begin(self, record: Record) -> None:
        """A request has come."""
        self._live.add(record)

    def meter(self, record: Record) -> Meter:
        """For one more sequence of a request, whose model and adapter are known."""
        meter = Meter(self._gaps_of(record).buckets)
        record.meters.append(meter)
        return meter

    def end(self, record: Record) -> None:
        """A request was answered, or will not be."""
        self._live.discard(record)
        labels = (record.model, record.adapter)
        status = str(record.status or GONE)
        self._add(named.REQUESTS, (*labels, record.endpoint, status, record.finish_reason))
        if record.reason and not record.probes:  # a server that is not ready rejects nobody
            self._add(named.REJECTIONS, (record.model, record.reason))
        if record.left:
            self._add(named.DISCONNECTS, labels)
        if record.model:
            self._seen.add(record.model)
            self._flush(record)
            self._observe(record, labels)

    def refused(self, refusal: Refusal) -> None:
        """What came was no request, or came by a connection too many."""
        self._add(named.REJECTIONS, ("", REASONS.get(refusal.status, "other")))

    def detokenized(self, model: str, seconds: float) -> None:
        """The chunks of a step were made text of and written."""
        self._add(named.DETOKENIZE_TIME, (model,), seconds)

    def _observe(self, record: Record, labels: tuple[str, str]) -> None:
        times = (
            (named.TOKENIZE_TIME, record.seconds("encode")),
            (named.STRUCTURE_TIME, record.seconds("constrain")),
        )
        for metric, seconds in times:
            if seconds is not None:
                self._see(metric, labels, seconds)
        if not record.answered:
            return
        self._see(named.END_TO_END, labels, record.ended - record.started)
        self._see(named.REQUEST_PROMPT, labels, record.prompt_tokens)
        if record.meters:
            self._observe_tokens(record, labels)
        lengths = (record.prompt_tokens, record.tokens)
        for (_, histogram), length in zip(self._nvidia, lengths, strict=False):
            histogram.labels(record.model).observe(length)

    def _observe_tokens(self, record: Record, labels: tuple[str, str]) -> None:
        self._see(named.TIME_TO_FIRST, labels, record.first_at - record.started)
        for meter in record.meters:
            if meter.queued is not None:
                self._see(named.QUEUE_TIME, labels, meter.queued)
            if meter.tokens > 1 and meter.last_at > meter.first_token_at:
                seconds = (meter.last_at - meter.first_token_at) / (meter.tokens - 1)
                self._see(named.TIME_PER_TOKEN, labels, seconds)
        self._see(named.REQUEST_GENERATION, labels, record.tokens)

    def _add(self, metric: Metric, labels: tuple[str, ...], amount: float = 1) -> None:
        self._made[metric].labels(*labels).inc(amount)

    def _see(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._made[metric].labels(*labels).observe(value)

    def _gaps_of(self, record: Record) -> Gaps:
        return self._gaps.setdefault((record.model, record.adapter), Gaps())

    def _flush(self, record: Record) -> None:
        """Count what a request has so far."""
        labels = (record.model, record.adapter)
        prompt = record.prompt_tokens if record.answered else 0
        have = [prompt, record.cached or 0, record.tokens]
        counters = (named.PROMPT_TOKENS, named.CACHED_TOKENS, named.GENERATION_TOKENS)
        for counter, now, before in zip(counters, have, record.told, strict=True):
            if now > before:
                self._add(counter, labels, now - before)
        record.told = have
        seconds = sum(meter.last_at - meter.first_at for meter in record.meters)
        if seconds > record.told_seconds:
            self._gaps_of(record).seconds += seconds - record.told_seconds
            record.told_seconds = seconds

    # Looking.

    def collect(self) -> Iterator[Family]:
        """All families, with what is in flight counted as far as it is."""
        for record in self._live:
            if record.model:
                self._flush(record)
        yield from self._registry.collect()
        yield self._inter_token()
        yield self._in_flight()

    def nvidia(self) -> Iterator[tuple[Metric, Family]]:
        """The lengths of prompts and answers in NVIDIA's buckets, by model, if they are wanted."""
        for metric, histogram in self._nvidia:
            for family in histogram.collect():
                yield metric, family

    def _inter_token(self) -> Family:
        metric = named.INTER_TOKEN_LATENCY
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = [*map(str, INTER_TOKEN), "+Inf"]
        for labels, gaps in self._gaps.items():
            total, buckets = 0, []
            for bound, number in zip(bounds, gaps.buckets, strict=True):
                total += number
                buckets.append((bound, total))
            family.add_metric(labels, buckets, gaps.seconds)
        return family

    def _in_flight(self) -> Family:
        metric = named.HTTP_IN_FLIGHT
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        models = [record.model for record in self._live if record.model]
        self._seen.update(models)
        for model in sorted(self._seen):
            family.add_metric((model,), models.count(model))
        return family
