# SPDX-License-Identifier: Apache-2.0
"""What vLLM says of its steps, counted and summed: its cache, its prefix cache, its preemptions."""

from typing import Any

from vllm.v1.metrics.loggers import PrometheusStatLogger

from trellis.engine_host.engines.engine import Figures


class VllmFigures:
    """The sums; `logger` is a type that the library makes its logger of."""

    def __init__(self) -> None:
        self.figures = Figures(0.0, 0, 0, 0)
        self.steps = 0

    @property
    def logger(self) -> type["_Logger"]:
        """One whose loggers add to these sums."""
        return type("Logger", (_Logger,), {"sums": self})

    def add(self, scheduler: Any, iteration: Any) -> None:
        """A step's statistics, either of which may be None."""
        self.steps += 1
        now = self.figures
        if scheduler is not None:
            prefix = scheduler.prefix_cache_stats
            now = now._replace(
                kv_cache_usage=float(scheduler.kv_cache_usage),
                prefix_queries=(now.prefix_queries or 0) + prefix.queries,
                prefix_hits=(now.prefix_hits or 0) + prefix.hits,
            )
        if iteration is not None:
            made = (now.preemptions or 0) + iteration.num_preempted_reqs
            now = now._replace(preemptions=made)
        self.figures = now


class _Logger(PrometheusStatLogger):  # type: ignore[misc]  # whose types mypy does not see
    """What the library calls after each step.

    Of this base, so that the library makes none of its own, which would observe every token for a
    page of metrics that nobody can ask for.
    """

    sums: VllmFigures

    def __init__(self, *_: Any, **__: Any) -> None:
        """The library gives its configuration and its engines' numbers."""

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Add them; releases differ in what else they give."""
        self.sums.add(scheduler_stats, iteration_stats)

    def log_engine_initialized(self) -> None:
        """Nothing."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def record_admission_rejection(self, *_: Any, **__: Any) -> None:
        """Nothing."""
