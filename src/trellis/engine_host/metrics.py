# SPDX-License-Identifier: Apache-2.0
"""What Triton's metrics page shows of the engine host, beside Triton's own figures."""

import triton_python_backend_utils as pb_utils


class Metrics:
    """Two figures; one thread reports them, and only what changed goes to the server."""

    def __init__(self, model: str) -> None:
        """`model`: whose they are, as Triton's own figures have it."""
        self._in_flight, self._cancelled = 0, 0
        gauges = pb_utils.MetricFamily(
            name="trellis_requests_in_flight",
            description="Requests that wait for the engine or run in it",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        counters = pb_utils.MetricFamily(
            name="trellis_requests_cancelled_total",
            description="Requests that ended because their client left, cancelled or stopped them",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self._gauge = gauges.Metric(labels={"model": model})
        self._counter = counters.Metric(labels={"model": model})
        self._families = (gauges, counters)  # a metric of a family that is gone raises

    def report(self, in_flight: int, cancelled: int) -> None:
        """Requests in flight now, and cancelled since the start."""
        if in_flight != self._in_flight:
            self._in_flight = in_flight
            self._gauge.set(in_flight)
        if cancelled > self._cancelled:
            self._counter.increment(cancelled - self._cancelled)
            self._cancelled = cancelled
