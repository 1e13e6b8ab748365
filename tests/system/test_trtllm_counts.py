"""Token counts and finish reasons with TensorRT-LLM's own engine: batches, beams, stops, HTTP."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from support.standin import Script
from support.standin_server import Served, serve
from trellis.tokenizers import Tokenizer

RELEASES = ("0.9.0", "0.17.0", "1.x")
PROMPT, SHORT, SLOW = "Say it", "Say hi", "Say it all"
TEXT = "안녕하세요 세계"
COUNTS = {"return_num_input_tokens": True, "return_num_output_tokens": True}
REASON = {"return_finish_reason": True}


@pytest.fixture(scope="module", params=RELEASES)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
    llama: Tokenizer,
) -> Iterator[Served]:
    """Answers two tokens to SHORT, a thousand to SLOW, TEXT to all else."""
    scripts = [
        Script(prompt=llama.encode_fragment(" hi"), answer=llama.encode_fragment(" hello you")),
        Script(prompt=llama.encode_fragment(" all"), answer=[1526] * 1000),
        Script(answer=llama.encode_fragment(TEXT)),
    ]
    folder = tmp_path_factory.mktemp(f"counts-{request.param}")
    delay: dict[str, Any] = {"token_delay_us": "2000"}
    with serve(request.param, folder, standin_library, llama_folder, scripts, **delay) as running:
        yield running


def tokens(llama: Tokenizer, text: str = TEXT) -> int:
    return len(llama.encode_fragment(text))


def http(served: Served, way: str, **body: Any) -> list[dict[str, Any]]:
    """The answers to /generate or /generate_stream."""
    url = f"{served.server.settings.url}/v2/models/ensemble/{way}"
    answer = httpx.post(url, json=body, timeout=20)
    assert answer.status_code == 200, answer.text
    if way == "generate":
        return [answer.json()]
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line]


def test_each_prompt_of_a_batch_has_its_own_numbers(served: Served, llama: Tokenizer) -> None:
    if served.release == "0.9.0":
        pytest.skip("one prompt a request")
    asked = [PROMPT, SHORT]
    found = served.ask(asked, "batch", max_tokens=100, **COUNTS, **REASON)
    rows = {int(answer["batch_index"].item()): answer for answer in found}
    for row, (prompt, made) in enumerate(((PROMPT, TEXT), (SHORT, " hello you"))):
        assert rows[row]["num_input_tokens"].tolist() == [[len(llama.encode(prompt))]]
        assert rows[row]["num_output_tokens"].tolist() == [[tokens(llama, made)]]
        assert rows[row]["finish_reason"].tolist() == [[b"stop"]]


def test_several_sequences_are_counted_one_by_one(served: Served, llama: Tokenizer) -> None:
    if served.release == "0.9.0":
        pytest.skip("no num_return_sequences")
    asked = {"max_tokens": 100, "num_return_sequences": 2, **COUNTS}
    whole = served.ask([PROMPT], "several", **asked)
    made = sorted(a["num_output_tokens"].item() for a in whole)
    assert made == [tokens(llama) - 1, tokens(llama)]  # the stand-in makes one of them shorter
    chunks = served.ask([PROMPT], "several", stream=True, **asked)
    assert sum(a["num_output_tokens"].item() for a in chunks) == sum(made)


def test_the_prompt_in_front_of_an_answer_is_no_output(served: Served, llama: Tokenizer) -> None:
    if served.release != "0.17.0":
        pytest.skip("the engine counts by itself, or the release has no such input")
    asked = {"max_tokens": 100, "exclude_input_in_output": False, **COUNTS, **REASON}
    (answer,) = served.ask([PROMPT], "in front", **asked)
    assert answer["text_output"][0].decode().startswith(PROMPT)
    assert answer["num_output_tokens"].item() == tokens(llama)
    assert answer["finish_reason"].tolist() == [[b"stop"]]


def test_http_counts_short_prompts_and_long_ones_whole_and_streamed(
    served: Served, llama: Tokenizer
) -> None:
    for prompt in (PROMPT, "a " * 1000 + PROMPT):
        asked = {"text_input": prompt, "max_tokens": 100, **COUNTS}
        (whole,) = http(served, "generate", **asked)
        chunks = http(served, "generate_stream", stream=True, **asked)
        assert len(chunks) > 3
        assert whole["text_output"] == "".join(c["text_output"] for c in chunks) == TEXT
        assert whole["num_output_tokens"] == sum(c["num_output_tokens"] for c in chunks)
        assert whole["num_output_tokens"] == tokens(llama)
        assert {a["num_input_tokens"] for a in (whole, *chunks)} == {len(llama.encode(prompt))}


def test_an_id_used_again_is_told_only_what_it_asks(served: Served) -> None:
    for asked in ({**COUNTS}, {}, {**REASON}, {}):
        (answer,) = served.ask([PROMPT], "again", max_tokens=100, **asked)
        told = {name for name in answer if name.startswith(("num_", "finish_"))}
        assert told == {name.removeprefix("return_") for name in asked}


def test_a_stopped_answer_was_cancelled(served: Served) -> None:
    answers: list[dict[str, np.ndarray]] = []
    asked = {"max_tokens": 1500, **COUNTS, **REASON}
    ask = threading.Thread(target=lambda: answers.extend(served.ask([SLOW], "slow", **asked)))
    ask.start()
    time.sleep(0.5)
    assert served.post(id="slow", stop=True).status_code == 200
    ask.join(20)
    (answer,) = answers
    assert answer["finish_reason"].tolist() == [[b"cancelled"]]
    assert 0 < answer["num_output_tokens"].item() < 1000


def test_prompts_of_one_request_share_what_is_told(served: Served) -> None:
    if served.release == "0.9.0":
        pytest.skip("one prompt a request")
    flags = [("return_finish_reason", "BOOL", np.array([[True], [False]]))]
    with pytest.raises(InferenceServerException, match="return_finish_reason: the prompts of one"):
        served.ask_with([PROMPT, SHORT], flags, max_tokens=5)
