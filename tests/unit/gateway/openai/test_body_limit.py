# SPDX-License-Identifier: Apache-2.0
"""How large a body of OpenAI's API may be, and how many values it may have.

By the model of the largest context.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trellis.gateway.limits import Limits
from trellis.gateway.models import Models
from trellis.gateway.openai.endpoint import BODY_CONTEXT, Endpoint
from trellis.gateway.openai.tokenizing import DetokenizeRequest
from trellis.gateway.refusals import Refusal

MILLION = 1 << 20  # tokens of a context


def limit(contexts: dict[str, int], headers: list[tuple[bytes, bytes]], **limits: int) -> int:
    """Of an endpoint before models with these contexts."""
    return asyncio.run(endpoint(contexts, **limits)._body_limit(headers))


def endpoint(contexts: dict[str, int], **limits: int) -> Endpoint:
    """One before models with these contexts; 0: a model that Triton does not show."""

    async def find(path: str) -> Any:
        context = contexts[path.rsplit("/", 1)[-1]]
        return SimpleNamespace(context=context) if context else Refusal(404, "")

    models = Models(1)
    models.made = lambda: dict.fromkeys(contexts, cast(Any, None))  # type: ignore[method-assign]
    models._find = find  # type: ignore[method-assign]
    encoders = ThreadPoolExecutor(1)
    state = SimpleNamespace(limits=Limits.of(limits), models=models, encoders=encoders)
    return Endpoint(cast(Any, state))


USUAL = Limits().body_limit(BODY_CONTEXT)
LARGE = [(b"content-length", b"%d" % (USUAL + 1))]


@pytest.mark.parametrize("headers", [LARGE, [(b"transfer-encoding", b"chunked")]])
def test_a_long_prompt_may_be_as_long_as_the_largest_model_takes(
    headers: list[tuple[bytes, bytes]],
) -> None:
    contexts = {"ensemble": 4096, "long": MILLION, "gone": 0}
    assert limit(contexts, headers) == Limits().body_limit(MILLION) > USUAL
    assert limit({"ensemble": 4096}, headers) == USUAL
    assert limit(contexts, headers, body_bytes=1000) == 1000


def test_a_usual_body_asks_for_no_model() -> None:
    assert limit({"long": MILLION}, [(b"content-length", b"100")]) == USUAL


@pytest.mark.parametrize(
    ("contexts", "limits", "most"),
    [
        ({"ensemble": 4096, "gone": 0}, {}, 2 * BODY_CONTEXT),
        ({"ensemble": 4096, "long": 300_000}, {}, 600_000),
        ({"ensemble": 4096, "long": 300_000}, {"json_items": 100_000}, 100_000),
    ],
)
def test_a_prompt_of_ids_may_be_as_long_as_the_largest_model_takes(
    contexts: dict[str, int], limits: dict[str, int], most: int
) -> None:
    asked = endpoint(contexts, **limits)

    def read(commas: int) -> DetokenizeRequest:
        ids = b"1" + b",1" * (commas - 1)
        return asyncio.run(asked.read(DetokenizeRequest, b'{"model":"m","tokens":[%b]}' % ids))

    assert len(read(most).tokens) == most
    with pytest.raises(Refusal, match=f"has {most + 1} values; send at most {most}"):
        read(most + 1)
