# SPDX-License-Identifier: Apache-2.0
"""What is made by a thread, beside what else the gateway does."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from trellis.contract.client_inputs import GUIDE_TYPE
from trellis.gateway.limits import LONG_BODY, MAX_ENGINE_BODY
from trellis.gateway.routes import Route

GUIDED = {GUIDE_TYPE: "json"}


@pytest.mark.parametrize(
    ("size", "values", "long"),
    [
        (100, {}, False),
        (100, GUIDED, True),  # the C++ backend's guides are translated by the gateway
        (LONG_BODY + 1, {}, True),
        (MAX_ENGINE_BODY + 1, GUIDED, False),  # another model makes it
    ],
)
def test_long_prompts_and_guides_are_long(size: int, values: dict[str, str], long: bool) -> None:
    asked = SimpleNamespace(size=size, values=values)
    for thread_safe in (True, False):
        preprocessor = SimpleNamespace(thread_safe=thread_safe)
        route = SimpleNamespace(requests=SimpleNamespace(preprocessor=preprocessor))
        expected = long and (thread_safe or size > LONG_BODY)
        assert Route.is_long(cast(Any, route), cast(Any, asked)) is expected
    assert not Route.is_long(cast(Any, SimpleNamespace(requests=None)), cast(Any, asked))
