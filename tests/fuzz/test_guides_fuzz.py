"""Made-up JSON schemas at temperature 1: every whole answer of the OpenVINO engine is valid.

FUZZ_REQUESTS=10000 asks 1,000 of them.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from fuzz.batches import batches
from support.engines import needs
from support.random_schemas import schemas
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine
from trellis.errors import RequestError
from trellis.guides.translate import translate
from trellis.tokenizers import Tokenizer, load

MAX_TOKENS = 100
PROMPT = "<|im_start|>user\nJSON, please<|im_end|>\n<|im_start|>assistant\n"
VALIDATOR = jsonschema.Draft202012Validator


class Judge:
    """Asks an engine, and looks at what comes."""

    def __init__(self, engine: Path, tokenizer: Path) -> None:
        self.kinds: Counter[str] = Counter()
        self._engine = OpenVinoEngine(EngineSettings(engine, max_batch_size=16))
        self._tokenizer: Tokenizer = load("gpt2", tokenizer)

    def ask(self, asked: list[Any]) -> None:
        """All of these schemas at once."""
        prompt = np.array(self._tokenizer.encode(PROMPT))
        for key, schema in enumerate(asked):
            try:
                kind, guide = translate("json_schema", json.dumps(schema))
            except RequestError:
                self.kinds["rejected"] += 1
                continue
            end = self._tokenizer.eos_id or 0
            sampling = Sampling(max_tokens=MAX_TOKENS, end_id=end, sample=True, seed=key)
            sampling.guide_type, sampling.guide = kind, guide
            self._engine.add(key, prompt, sampling)
        ids: dict[int, list[int]] = {}
        wrong = []
        while self._engine.busy:
            for event in self._engine.step():
                if isinstance(event, Failure) and "guide_seconds" in event.message:
                    self.kinds["late"] += 1  # on a machine that does much else
                    continue
                if isinstance(event, Failure):
                    wrong.append(f"{asked[event.key]}: {event.message}")
                    continue
                ids.setdefault(event.key, []).extend(event.ids)
                if event.finish == "stop":
                    text = self._tokenizer.decode(ids[event.key])
                    if not self._is_valid(asked[event.key], text):
                        wrong.append(f"{asked[event.key]}: {text!r} {ids[event.key]}")
                elif event.finish:
                    self.kinds["cut"] += 1
        assert not wrong  # after the engine is idle: what fails is tried again

    def _is_valid(self, schema: Any, text: str) -> bool:
        self.kinds["whole"] += 1
        try:
            document = json.loads(text)
        except ValueError:
            return False
        checker = VALIDATOR.FORMAT_CHECKER
        return bool(VALIDATOR(schema, format_checker=checker).is_valid(document))

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def judge(demo_engine: tuple[Path, Path]) -> Iterator[Judge]:
    judging = Judge(*demo_engine)
    yield judging
    print("\nfuzz of guides:", dict(judging.kinds))
    assert judging.kinds["whole"]
    judging.close()


@needs("step in the caller's process")
@batches(schemas(), 0.1)
def test_every_whole_answer_is_valid(judge: Judge, batch: list[Any]) -> None:
    judge.ask(batch)
