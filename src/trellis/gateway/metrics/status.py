# SPDX-License-Identifier: Apache-2.0
"""GET /status/figures: what the page at /status draws, a few sums for each model.

    {"seconds": 12.5, "models": {"ensemble": {"running": 3, "first_token": [[0.001, 0], ...], ...}}}

Sums are since the gateway began, at `seconds` of a clock that nothing sets back. A histogram is a
list of a bound (null: none) and how many were not above it.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from trellis.contract import metrics as named
from trellis.contract.metrics import Metric
from trellis.gateway.metrics.page import Figures
from trellis.gateway.refusals import JSON
from trellis.gateway.sending import Receive, Scope, Send, send_whole

SUMS: dict[str, Metric] = {
    "requests": named.REQUESTS,
    "in_flight": named.HTTP_IN_FLIGHT,
    "rejected": named.REJECTIONS,
    "disconnected": named.DISCONNECTS,
    "prompt_tokens": named.PROMPT_TOKENS,
    "tokens": named.GENERATION_TOKENS,
    "running": named.RUNNING,
    "waiting": named.WAITING,
    "kv_cache": named.KV_USAGE,
    "prefix_queries": named.PREFIX_QUERIES,
    "prefix_hits": named.PREFIX_HITS,
    "preemptions": named.PREEMPTIONS,
}
HISTOGRAMS: dict[str, Metric] = {
    "first_token": named.TIME_TO_FIRST,
    "inter_token": named.INTER_TOKEN_LATENCY,
    "end_to_end": named.END_TO_END,
    "queue": named.QUEUE_TIME,
}
_SUMS = {metric.name: name for name, metric in SUMS.items()}
_BUCKETS = {f"{metric.name}_bucket": name for name, metric in HISTOGRAMS.items()}


class StatusFigures:
    """The ASGI endpoint."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one GET."""
        models = by_model(await self._figures.families())
        body = json.dumps({"seconds": time.monotonic(), "models": models}, separators=(",", ":"))
        headers = [(b"content-type", JSON), (b"cache-control", b"no-store")]
        await send_whole(send, 200, headers, body.encode())


def by_model(families: Iterable[Family]) -> dict[str, Any]:
    """Of each model its sums and histograms, all adapters together; "" are requests of none."""
    sums: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for family in families:
        for sample in family.samples:
            made = sums[sample.labels.get("model", "")]
            name = _SUMS.get(sample.name)
            if name is not None:
                made[name] = made.get(name, 0) + sample.value
            elif sample.name in _BUCKETS:
                _add_bucket(made.setdefault(_BUCKETS[sample.name], {}), sample)
    return {model: {name: _listed(value) for name, value in made.items()}
            for model, made in sorted(sums.items()) if made}  # fmt: skip


def _add_bucket(buckets: dict[str, float], sample: Sample) -> None:
    bound = sample.labels["le"]
    buckets[bound] = buckets.get(bound, 0) + sample.value


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return [[None if le == "+Inf" else float(le), count] for le, count in value.items()]
