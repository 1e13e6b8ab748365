"""What Triton's metrics page shows of the engine host, beside Triton's own figures."""

from typing import Any

import triton_python_backend_utils as pb_utils


class Metrics:
    """Two figures; one thread reports them, and only what changed goes to the server."""

    def __init__(self) -> None:
        self._in_flight, self._cancelled = 0, 0
        self._gauge = _metric(
            "trellis_requests_in_flight",
            "Requests that wait for the engine or run in it",
            pb_utils.MetricFamily.GAUGE,
        )
        self._counter = _metric(
            "trellis_requests_cancelled",
            "Requests that ended because their client left, cancelled or stopped them",
            pb_utils.MetricFamily.COUNTER,
        )

    def report(self, in_flight: int, cancelled: int) -> None:
        """Requests in flight now, and cancelled since the start."""
        if in_flight != self._in_flight:
            self._in_flight = in_flight
            self._gauge.set(in_flight)
        if cancelled > self._cancelled:
            self._counter.increment(cancelled - self._cancelled)
            self._cancelled = cancelled


def _metric(name: str, description: str, kind: Any) -> Any:
    family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
    return family.Metric(labels={})
