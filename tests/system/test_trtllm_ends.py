"""A model with several end ids on TensorRT-LLM's own engine, which takes one: the others are words.

The gateway's shortest way stays: what it makes of a request is what `ensemble` sends.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.standin import Script, read_journal
from support.standin_server import Served, serve
from trellis.contract.release import read_contract
from trellis.tokenizers import Tokenizer

RELEASES = ["0.5.0", "0.6.1", "0.12.0", "1.x"]
TEXT = "one two three four"
EOS = 2


@pytest.fixture(scope="module", params=RELEASES)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
    llama: Tokenizer,
) -> Iterator[Served]:
    """Its answer has the second end id as the third of its ids."""
    folder = tmp_path_factory.mktemp(f"ends-{request.param}")
    files = folder / "tokenizer"
    shutil.copytree(llama_folder, files)
    answer = llama.encode(TEXT)[1:]
    listed = {"eos_token_id": [EOS, answer[2], 31_000]}
    (files / "generation_config.json").write_text(json.dumps(listed))
    with serve(request.param, folder, standin_library, files, [Script(answer=answer)]) as running:
        yield running


def came(served: Served) -> list[dict[str, Any]]:
    events = read_journal(served.folder / "journal")
    return [event["inputs"] for event in events if event["event"] == "request"]


ENDS: dict[str, tuple[dict[str, Any], list[int] | None]] = {
    "the tokenizer's": ({}, [31_000]),
    "one of the client's": ({"end_id": 31}, None),
    "none": ({"end_id": -1}, None),
    "more": ({"stop_token_ids": [29, EOS, 31_000]}, [31_000, 29]),
    "none but these": ({"end_id": -1, "stop_token_ids": [29, EOS]}, [29, EOS]),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_first_is_the_end_id_and_the_others_are_stop_words(
    served: Served, llama: Tokenizer, case: str
) -> None:
    values, more = ENDS[case]
    takes_words = read_contract(served.release).input("stop_words_list") is not None
    asked = {"id": case, "text_input": "Say it", "max_tokens": 40} | values
    if served.release in ("0.5.0", "0.6.1") and values.get("end_id") == -1:
        asked["end_id"] = 2**32 - 1  # what -1 is among unsigned numbers
    answers = []
    for port in (served.server.settings.http_port, served.server.triton_port):
        before = len(came(served))
        url = f"http://127.0.0.1:{port}/v2/models/ensemble/generate"
        answers.append(httpx.post(url, json=asked, timeout=20))
        got = came(served)[before:]
        if "stop_token_ids" in values and not takes_words:
            assert answers[-1].status_code == 400
            assert "stop_token_ids: this engine" in answers[-1].json()["error"]
            continue
        assert answers[-1].status_code == 200
        (inputs,) = got
        words = None
        if more is not None and takes_words:
            third = [llama.encode(TEXT)[3]] if values.get("end_id") != -1 else []
            ids = third + more
            words = [*ids, *range(1, len(ids) + 1)]
        assert inputs.get("stop_words_list", {}).get("values") == words
        end = values.get("end_id", EOS)
        unsigned = inputs.get("end_id", {"datatype": "UINT32"})["datatype"] == "UINT32"
        assert inputs.get("end_id", {}).get("values") == (None if end < 0 and unsigned else [end])
    assert answers[0].text == answers[1].text


def test_no_request_takes_a_detour_for_them(served: Served) -> None:
    url = f"http://127.0.0.1:{served.server.triton_port}/v2/models/preprocessing/stats"

    def count() -> int:
        return int(httpx.get(url).json()["model_stats"][0]["inference_count"])

    before = count()
    assert served.post(text_input="Say it", max_tokens=4).status_code == 200
    assert count() == before


def test_a_release_without_stop_words_says_what_it_goes_on_after(served: Served) -> None:
    said = "this engine ends an answer at one id; it goes on after" in served.log
    assert said == (read_contract(served.release).input("stop_words_list") is None)
