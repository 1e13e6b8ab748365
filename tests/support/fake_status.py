# SPDX-License-Identifier: Apache-2.0
"""The page at /status, before figures that a test or a picture decides."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from support.fake_openai import served
from trellis.contract.metrics import FIRST_TOKEN, INTER_TOKEN, LATENCY
from trellis.gateway.page import STATUS, Page
from trellis.server.ports import free_ports

Figures = dict[str, Any]


class FakeStatus:
    """What it answers, and how often it was asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/status"
        self.seconds = 100.0
        self.models: dict[str, Figures] = {"ensemble": {}}
        self.error = 0  # a status
        self.asked = 0
        self.keys: list[str | None] = []

    def app(self) -> Starlette:
        """The page, and what it asks."""
        return Starlette(
            routes=[Route("/status", Page(STATUS)), Route("/status/figures", self._figures)]
        )

    def _figures(self, request: Request) -> Response:
        self.asked += 1
        self.keys.append(request.headers.get("authorization"))
        if self.error:
            return JSONResponse({"error": {"message": "no"}}, self.error)
        return JSONResponse({"seconds": self.seconds, "models": self.models})

    def pass_time(self, seconds: float, **sums: Any) -> None:
        """So much later, with these figures of the one model."""
        self.seconds += seconds
        self.models["ensemble"] = {**self.models["ensemble"], **sums}


@contextmanager
def fake_status() -> Iterator[FakeStatus]:
    """A running one."""
    (port,) = free_ports(1)
    fake = FakeStatus(port)
    with served(fake.app(), port):
        yield fake


def buckets(bounds: tuple[float, ...], under: float, count: float) -> list[list[Any]]:
    """A histogram of `count` values, all of them in the bucket that `under` is in."""
    made: list[list[Any]] = [[bound, count * (bound >= under)] for bound in bounds]
    return [*made, [None, count]]


def busy(step: int) -> Figures:
    """Figures of a server under a load that comes and goes, at its `step`th look."""
    loads = [12 + 8 * math.sin(at / 9) for at in range(step + 1)]
    requests, running = sum(loads), loads[-1] * 2
    return {
        "requests": requests, "tokens": requests * 128, "prompt_tokens": requests * 340,
        "rejected": requests * 0.01, "disconnected": requests * 0.02, "running": running,
        "waiting": max(running - 32, 0), "in_flight": running + max(running - 32, 0),
        "kv_cache": running / 50, "prefix_queries": requests * 340, "prefix_hits": requests * 190,
        "first_token": _spread(FIRST_TOKEN, 0.06, loads),
        "inter_token": _spread(INTER_TOKEN, 0.02, [127 * load for load in loads]),
        "end_to_end": _spread(LATENCY, 2.2, loads), "queue": _spread(LATENCY, 0.2, loads),
    }  # fmt: skip


def _spread(bounds: tuple[float, ...], middle: float, counts: list[float]) -> list[list[Any]]:
    """A histogram of times around `middle`, longer where there were more of them at once."""
    usual = counts[0]
    made: list[list[Any]] = [
        [bound, sum(count / (1 + (middle * count / usual / bound) ** 3) for count in counts)]
        for bound in bounds
    ]
    return [*made, [None, sum(counts)]]
