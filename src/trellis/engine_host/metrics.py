# SPDX-License-Identifier: Apache-2.0
"""What Triton's metrics page shows of the engine host, beside Triton's own figures."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from trellis.contract.metrics import CANCELLED, ENGINE_IN_FLIGHT, Metric
from trellis.contract.model_names import model_of

FIGURES_SECONDS = 0.25  # each figure that changed costs a message to the server


class Metrics:
    """One thread reports the figures, and only what changed goes to the server."""

    def __init__(self, model: str, figures: Callable[[], Mapping[Metric, float | None]]) -> None:
        """`model`: whose they are; `figures`: of the scheduler and its engine, None: not known."""
        self._model = model
        self._figures = figures
        self._next = 0.0
        self._known: dict[Metric, float] = {}
        self._made: dict[Metric, Any] = {}
        self._families: list[Any] = []  # a metric of a family that is gone raises

    def report(self, in_flight: int, cancelled: int) -> None:
        """Requests in flight now, and cancelled since the start; the others now and then."""
        # As Triton's own figures have it: the model is the step.
        self._tell(ENGINE_IN_FLIGHT, in_flight, self._model)
        self._tell(CANCELLED, cancelled, self._model)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + FIGURES_SECONDS
            for metric, value in self._figures().items():
                if value is not None:
                    self._tell(metric, value, model_of(self._model))

    def _tell(self, metric: Metric, value: float, model: str) -> None:
        before = self._known.get(metric)
        if before == value:
            return
        if before is None:
            self._made[metric] = self._new(metric, model)
        self._known[metric] = value
        if metric.kind == "gauge":
            self._made[metric].set(value)
        elif value > (before or 0):
            self._made[metric].increment(value - (before or 0))

    def _new(self, metric: Metric, model: str) -> Any:
        gauge = metric.kind == "gauge"
        family = pb_utils.MetricFamily(
            name=metric.name,
            description=metric.help,
            kind=pb_utils.MetricFamily.GAUGE if gauge else pb_utils.MetricFamily.COUNTER,
        )
        self._families.append(family)
        return family.Metric(labels={"model": model})
