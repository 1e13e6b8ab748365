"""`/generate` of what has several responses is refused before anything runs, by either wiring."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from support.standin import Script, read_journal
from support.standin_server import Served, serve
from trellis.contract.release import read_contract
from trellis.gateway.replies import Refusal
from trellis.gateway.responses import Responses
from trellis.repository.model_config import parse_config
from trellis.repository.model_configs import SOURCES
from trellis.tokenizers import load

RELEASES = ("0.9.0", "0.13.0", "1.x")
SEVERAL: dict[str, dict[str, Any]] = {
    "stream": {"stream": True},
    "stream, in a list": {"stream": [True]},
    "stream, among the parameters": {"parameters": {"stream": True}},
    "several sequences": {"num_return_sequences": 2},
    "several sequences, in a list": {"num_return_sequences": [3]},
    "a batch": {"text_input": ["a", "b"], "max_tokens": [4, 4]},
}


@pytest.fixture(scope="module", params=RELEASES)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
) -> Iterator[Served]:
    scripts = [Script(answer=load("llama", llama_folder).encode("Hello")[1:])]
    folder = tmp_path_factory.mktemp(f"responses-{request.param}")
    with serve(request.param, folder, standin_library, llama_folder, scripts) as running:
        yield running


def came(served: Served) -> int:
    """How many requests the engine has had."""
    return sum(event["event"] == "request" for event in read_journal(served.folder / "journal"))


@pytest.mark.parametrize("case", SEVERAL)
def test_several_responses_are_refused_by_name_before_anything_runs(
    served: Served, case: str
) -> None:
    before = came(served)
    answer = served.post(**({"text_input": "Say it", "max_tokens": 4} | SEVERAL[case]))
    assert answer.status_code == 400, answer.text
    field = {"a": "text_input", "s": "stream"}[case[0]]
    field = "num_return_sequences" if "sequences" in case else field
    assert f"{field}: " in answer.json()["error"]
    assert came(served) == before


def test_what_has_one_response_is_answered(served: Served) -> None:
    one: list[dict[str, Any]] = [
        {"stream": False},
        {"text_input": ["a"], "max_tokens": [4]},
        {"beam_width": 3},
    ]
    if read_contract(served.release).input("num_return_sequences") is not None:
        one += [{"num_return_sequences": 1}, {"beam_width": 3, "num_return_sequences": 2}]
    for more in one:
        answer = served.post(**({"text_input": "Say it", "max_tokens": 4} | more))
        assert (answer.status_code, "text_output" in answer.json()) == (200, True), answer.text


def test_where_nothing_streams_the_refusal_says_so(
    tmp_path: Path, standin_library: Path, llama_folder: Path
) -> None:
    scripts = [Script(answer=load("llama", llama_folder).encode("Hello")[1:])]
    whole = {"decoupled_mode": "false"}
    with serve("1.x", tmp_path, standin_library, llama_folder, scripts, whole) as served:
        answer = served.post(text_input="Say it", max_tokens=4, stream=True)
        assert answer.status_code == 400
        assert "decoupled_mode:false" in answer.json()["error"]
        assert came(served) == 0
        for more in ({"num_return_sequences": 2}, {"text_input": ["a", "b"], "max_tokens": [4, 4]}):
            answer = served.post(**({"text_input": "Say it", "max_tokens": 4} | more))
            assert answer.status_code == 400, answer.text


def python_steps(decoupled: str) -> list[dict[str, Any]]:
    """The models of a Python engine's ensemble, as Triton shows their configurations."""
    steps = []
    for model in ("preprocessing", "tensorrt_llm"):
        text = (SOURCES / model / "config.pbtxt").read_text()
        for line in text.splitlines():
            if "${" in line and "decoupled_mode" not in line:
                text = text.replace(line, "")
        config = parse_config(text.replace("${decoupled_mode}", decoupled))
        steps.append(json_format.MessageToDict(config, preserving_proto_field_name=True))
    return steps


def test_a_python_engine_answers_batches_and_sequences_at_once() -> None:
    responses = Responses.of(python_steps("true"))
    responses.check_one({"num_return_sequences": 4, "stream": [False, False]}, 2)
    with pytest.raises(Refusal) as caught:
        responses.check_one({"stream": [False, True]}, 2)
    assert caught.value.message == (
        "stream: /generate gives one answer; send it to /generate_stream, or leave stream out"
    )
    with pytest.raises(Refusal) as caught:
        Responses.of(python_steps("false")).check_one({"stream": True}, 1)
    assert "decoupled_mode:false" in json.dumps(caught.value.message)
