# SPDX-License-Identifier: Apache-2.0
"""A request that begins ends, whatever raises in between."""

import asyncio
from typing import Any

import pytest

from trellis.gateway.metrics.observed import Observed
from trellis.gateway.metrics.record import Record
from trellis.gateway.metrics.registry import Registry


@pytest.mark.parametrize("part", ["hook", "application"])
def test_what_raises_leaves_no_request_behind(part: str) -> None:
    registry, ended = Registry(), []

    async def app(*_: Any) -> None:
        if part == "application":
            raise KeyError(part)

    def begun(*_: Any) -> None:
        if part == "hook":
            raise KeyError(part)

    def note(_: Any, record: Record) -> None:
        ended.append(record)

    observed = Observed(app, registry, begun, (note,))

    async def ignored(*_: Any) -> Any:
        return None

    with pytest.raises(KeyError):
        asyncio.run(observed({"path": "/", "method": "POST"}, ignored, ignored))
    assert len(ended) == 1
    assert not registry._live
