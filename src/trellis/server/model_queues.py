# SPDX-License-Identifier: Apache-2.0
"""Whether requests leave the queues of Triton's models, by Triton's own metrics page.

A model whose process proves that it is well may yet get nothing: what stands between Triton and it
hangs. The C++ backend has no process of ours at all; it counts its iterations there.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from trellis.ipc.stalls import Stall

PENDING, ACTIVE = "nv_inference_pending_request_count", "nv_trt_llm_request_metrics"
ITERATIONS = "nv_trt_llm_general_metrics"
# What changes when a request leaves a model's queue, in whatever way.
LEFT = ("nv_inference_exec_count", "nv_inference_request_success", "nv_inference_request_failure")
_LINE = re.compile(r"^(nv_\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Queue(NamedTuple):
    """One of a model."""

    model: str
    what: str  # waits in it
    waiting: float
    moved: float  # changes as something leaves it


def queues(page: str) -> Iterator[Queue]:
    """Those in which something waits; `page`: of Triton's metrics, in Prometheus' form.

    >>> [queue] = queues('nv_inference_pending_request_count{model="m",version="1"} 2')
    >>> queue
    Queue(model='m', what='requests wait for it', waiting=2.0, moved=0.0)
    """
    pending: defaultdict[str, float] = defaultdict(float)
    active: defaultdict[str, float] = defaultdict(float)
    left: defaultdict[str, float] = defaultdict(float)
    iterations: defaultdict[str, float] = defaultdict(float)
    for name, labels, value in _LINE.findall(page):
        label = dict(_LABEL.findall(labels))
        model = label.get("model", "")
        if name == PENDING:
            pending[model] += float(value)
        elif name in LEFT:
            left[model] += float(value)
        elif name == ACTIVE and label.get("request_type") == "active":
            active[model] += float(value)
        elif name == ITERATIONS and label.get("general_type") == "iteration_counter":
            iterations[model] += float(value)
    for model, count in pending.items():
        if count:
            moved = left[model] + iterations[model]
            yield Queue(model, "requests wait for it", count, moved)
    for model, count in active.items():
        if count:
            yield Queue(model, "requests run in its engine", count, iterations[model])


class QueueStalls:
    """How long the queues have not moved."""

    def __init__(self) -> None:
        self._stalls: defaultdict[tuple[str, str], Stall] = defaultdict(Stall)

    def look(self, page: str, now: float) -> tuple[float, Queue] | None:
        """The queue that has not moved for longest, and its seconds; None if all are empty."""
        found = {(queue.model, queue.what): queue for queue in queues(page)}
        for key in self._stalls.keys() - found.keys():
            del self._stalls[key]
        stalled = [(self._stalls[key].look(each.moved, now), each) for key, each in found.items()]
        return max(stalled, default=None)
