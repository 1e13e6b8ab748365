# SPDX-License-Identifier: Apache-2.0
"""Structural tags of the formats of calls, as the OpenVINO engine's library takes them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.parser_calls import TOOLS
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine
from trellis.guides.translate import translate
from trellis.parsers import ToolUse
from trellis.parsers.registry import known_formats, load

pytestmark = pytest.mark.slow  # the demo's model makes every token

PROMPT = [504, 3575, 282, 4649]
# All that harmony writes is between special tokens, which a request is never held to.
CALLS = [name for name in known_formats() if load(name).calls and name != "harmony"]


@pytest.fixture(scope="module")
def engine(demo_engine: tuple[Path, Path]) -> Iterator[OpenVinoEngine]:
    made = OpenVinoEngine(EngineSettings(demo_engine[0], max_batch_size=8))
    yield made
    made.close()


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("prompt", ["", "<think>\n"])
@pytest.mark.parametrize("name", [*CALLS, *(f"think+{name}" for name in CALLS)])
def test_the_library_takes_each_formats_structure(
    engine: OpenVinoEngine, name: str, prompt: str, required: bool, parallel: bool
) -> None:
    structure = load(name).structure(ToolUse(TOOLS[:3], required, parallel), prompt)
    if structure is None:
        assert name.endswith("llama4_pythonic")
        assert not required  # only then it is held
        return
    tag = json.dumps({"type": "structural_tag", "format": structure})
    kind, guide = translate("structural_tag", tag)
    sampling = Sampling(max_tokens=4, end_id=2, guide_type=kind, guide=guide)
    engine.add(1, np.array(PROMPT), sampling)
    events: list[Any] = []
    while engine.busy:
        events += engine.step()

    assert events
    assert not [event.message for event in events if isinstance(event, Failure)]
