# SPDX-License-Identifier: Apache-2.0
"""The OpenVINO engine holds calls to each format, and its parser reads what the model said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from support.parser_calls import SCHEMAS, TOOLS
from support.parser_readings import read
from support.parser_writers import PROMPTS, WRITERS
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine
from trellis.guides.translate import translate
from trellis.parsers import Setup, ToolUse
from trellis.parsers.registry import load

pytestmark = pytest.mark.slow  # the demo's model makes every token

END = 2  # <|im_end|>
SEEDS = range(3)
FORMS = [
    name
    for name in (*WRITERS, "think+qwen3_coder")
    if load(name).structure(ToolUse(TOOLS), PROMPTS.get(name, "")) is not None
]


UNENDING = ("glm", "harmony", "think+qwen3_coder")  # any text, which this model may not end


@pytest.fixture(scope="module")
def engine(demo_engine: tuple[Path, Path]) -> Iterator[OpenVinoEngine]:
    made = OpenVinoEngine(EngineSettings(demo_engine[0], max_batch_size=8))
    yield made
    made.close()


def answers(engine: OpenVinoEngine, name: str) -> list[tuple[str, str]]:
    """What the model says with each seed, at temperature 1, and how that ended."""
    use = ToolUse(TOOLS, required=True, parallel=False)
    structure = load(name).structure(use, PROMPTS.get(name, ""))
    kind, guide = translate(
        "structural_tag", json.dumps({"type": "structural_tag", "format": structure})
    )
    for seed in SEEDS:
        asked: dict[str, Any] = {"guide_type": kind, "guide": guide, "end_id": END, "seed": seed}
        sampling = Sampling(max_tokens=150, temperature=1.0, sample=True, **asked)
        engine.refuse(sampling)
        engine.add(seed, np.array([504, 3575, 282, 4649]), sampling)
    ids: dict[int, list[int]] = {seed: [] for seed in SEEDS}
    ends: dict[int, str] = {}
    while engine.busy:
        for event in engine.step():
            assert not isinstance(event, Failure), event
            ids[event.key].extend(event.ids)
            ends[event.key] = event.finish or ""
    tokenizer = engine._pipeline.get_tokenizer()
    texts = [[each for each in ids[seed] if each != END] for seed in SEEDS]
    return [
        (str(tokenizer.decode(text)), ends[seed]) for text, seed in zip(texts, SEEDS, strict=True)
    ]


@pytest.mark.parametrize("name", FORMS)
def test_what_a_model_is_held_to_is_read_as_calls_that_fit(
    engine: OpenVinoEngine, name: str
) -> None:
    setup = Setup(PROMPTS.get(name, ""), TOOLS, constrained=True)
    made = answers(engine, name)
    complete = [text for text, end in made if end == "stop"]
    assert complete or name in UNENDING, made
    for text in complete:
        reading = read(load(name), [text], setup)
        assert reading.calls, text
        for call in reading.calls:
            assert call.complete, text
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
