"""Requests that the gateway makes for the engine itself: for every release, what `ensemble` sends.

The stand-in engine notes what came; Triton's own port, behind the gateway, is the other way.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.fake_engines import RELEASES
from support.standin import Script, read_journal
from support.standin_server import Served, serve
from trellis.contract.release import read_contract
from trellis.gateway.settings import LONG_BODY, MAX_ENGINE_BODY
from trellis.tokenizers import load

# No connection is kept: the server would wait for it to close.
HTTP = httpx.Client(trust_env=False, timeout=20, limits=httpx.Limits(max_keepalive_connections=0))
BOS = 1
KOREAN = "안녕하세요 세계 😀 naïve"
BODIES: dict[str, dict[str, Any]] = {
    "a prompt": {"text_input": "Say it"},
    "Korean, in lists": {"text_input": [KOREAN], "max_tokens": [7]},
    "sampling": {
        "top_k": 5,
        "top_p": 0.95,
        "temperature": 0.7,
        "repetition_penalty": 1.1,
        "presence_penalty": -0.25,
        "random_seed": 2**64 - 1,
        "min_length": 3,
    },
    "newer names": {"seed": [2**40], "min_tokens": 2},
    "greedy": {"temperature": 0, "top_p": 0.0},
    "no end": {"end_id": -1, "pad_id": 5},
    "what is returned": {"return_log_probs": True},
    "a count": {"return_num_input_tokens": True},
    "the prompt too": {"exclude_input_in_output": False},
    "guided": {"guided_decoding_guide_type": "json", "guided_decoding_guide": '{"a": "\\u00e9"}'},
    "a grammar": {
        "guided_decoding_guide_type": ["ebnf_grammar"],
        "guided_decoding_guide": ["root ::= [0-9]+"],
    },
    "a guide of no type": {"guided_decoding_guide": "{}"},
    "an unknown guide": {"guided_decoding_guide_type": "yaml", "guided_decoding_guide": "{}"},
    "no guide": {"guided_decoding_guide_type": "regex"},
    "stop words": {"stop_words": ["it", "말"], "bad_words": ["no"]},
    "ends": {"stop_token_ids": [29, 30], "end_id": 31},
    "ends and words": {"stop_token_ids": [29], "stop_words": ["it", "말"], "end_id": -1},
    "an end of no vocabulary": {"stop_token_ids": [5, -1]},
    "special tokens": {"skip_special_tokens": False},
    "special tokens, in a list": {"skip_special_tokens": [False], "stream": False},
    "no special tokens": {"skip_special_tokens": True},
    "a bias": {"embedding_bias_words": ["yes"], "embedding_bias_weights": [2.5]},
    "nothing of it": {"stop_words": [""], "beam_width": 1, "num_return_sequences": 1},
    "a long prompt": {"text_input": "Say" + " " * LONG_BODY},
    "no prompt": {"text_input": ""},
    "an id to be quoted": {"id": 'a "quoted" \\ \u00e9', "text_input": "Say it"},
    "no tokens": {"max_tokens": 0},
    "too many tokens": {"max_tokens": 10**6},
    "no probability": {"top_p": 7.0},
    "an id of no vocabulary": {"end_id": 10**6},
    "a word too long": {"stop_words": ["x" * 5000]},
}


@pytest.fixture(scope="module", params=RELEASES)
def served(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    standin_library: Path,
    llama_folder: Path,
) -> Iterator[Served]:
    answer = load("llama", llama_folder).encode(KOREAN)[1:]
    answer[6:6] = [BOS]  # a special token, in the midst of it
    folder = tmp_path_factory.mktemp(f"front-{request.param}")
    scripts = [Script(answer=answer)]
    guides = read_contract(request.param).input("guided_decoding_guide_type") is not None
    settings = {"guided_decoding_backend": "xgrammar"} if guides else {}
    with serve(request.param, folder, standin_library, llama_folder, scripts, settings) as running:
        yield running


def counts(served: Served) -> dict[str, int]:
    """How many requests each model has had, but the engine."""
    url = f"http://127.0.0.1:{served.server.triton_port}/v2/models/stats"
    stats = HTTP.get(url).json()["model_stats"]
    return {one["name"]: one["inference_count"] for one in stats if one["name"] != "tensorrt_llm"}


def grows_by(served: Served, before: dict[str, int], **more: int) -> None:
    """Triton counts a request a moment after its answer."""
    wanted = {name: count + more.get(name, 0) for name, count in before.items()}
    end = time.monotonic() + 5
    while counts(served) != wanted and time.monotonic() < end:
        time.sleep(0.02)
    assert counts(served) == wanted


def requests_at(served: Served) -> list[dict[str, Any]]:
    return [e for e in read_journal(served.folder / "journal") if e["event"] == "request"]


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("kind", ["generate", "generate_stream"])
def test_the_engine_gets_what_the_ensemble_sends_and_so_does_the_client(
    served: Served, case: str, kind: str
) -> None:
    body = {"id": f"{case} {kind}", "text_input": "Say it", "max_tokens": 40} | BODIES[case]
    if served.release in ("0.5.0", "0.6.1") and body.get("end_id") == -1:
        body["end_id"] = 2**32 - 1  # what -1 is among unsigned numbers
    if kind == "generate_stream":
        body["stream"] = True
    answers, came = [], []
    for port in (served.server.settings.http_port, served.server.triton_port):
        before = len(requests_at(served))
        url = f"http://127.0.0.1:{port}/v2/models/ensemble/{kind}"
        answers.append(HTTP.post(url, json=body))
        came.append([one["inputs"] for one in requests_at(served)[before:]])
    front, ensemble = answers
    assert front.status_code == ensemble.status_code
    assert said(front) == said(ensemble)
    assert came[0] == came[1]
    assert len(came[0]) == (front.status_code == 200)


def said(answer: httpx.Response) -> list[Any]:
    """The objects of an answer, keys and order as they came."""
    kind = answer.headers["content-type"].partition(";")[0]
    events = [answer.text]
    if kind != "application/json":
        events = [line[6:] for line in answer.text.split("\n\n") if line.strip()]
    if answer.status_code != 200:  # of two inputs that are wrong, chance says which is named
        events = [event.replace("_guide_type:", "_guide:") for event in events]
    return [kind, *(list(json.loads(event).items()) for event in events)]


@pytest.mark.parametrize("length", [1, LONG_BODY, MAX_ENGINE_BODY - 200])
def test_prompts_go_to_the_engine_itself(served: Served, length: int) -> None:
    before = counts(served)
    assert served.post(text_input=" " * length, max_tokens=4).status_code == 200
    time.sleep(0.1)
    grows_by(served, before)


def test_prompts_of_many_ids_go_through_preprocessing(served: Served) -> None:
    before = counts(served)
    prompt = " " * MAX_ENGINE_BODY
    assert served.post(text_input=prompt, max_tokens=4).status_code == 200
    grows_by(served, before, preprocessing=1, ensemble_ids=1)


def test_word_lists_go_to_the_engine_itself(served: Served) -> None:
    if read_contract(served.release).input("stop_words_list") is None:
        pytest.skip(f"TensorRT-LLM {served.release} takes no stop words in requests")
    before = counts(served)
    words = {"stop_words": ["x", "one two"], "bad_words": ["y"], "stop_token_ids": [7, 8]}
    assert served.post(text_input="Say it", max_tokens=4, **words).status_code == 200
    time.sleep(0.1)
    grows_by(served, before)


def test_a_bias_for_every_id_is_much_json_and_goes_through_preprocessing(served: Served) -> None:
    if read_contract(served.release).input("embedding_bias") is None:
        pytest.skip(f"TensorRT-LLM {served.release} takes no bias")
    before = counts(served)
    bias = {"embedding_bias_words": ["yes"], "embedding_bias_weights": [2.5]}
    assert served.post(text_input="Say it", max_tokens=4, **bias).status_code == 200
    grows_by(served, before, preprocessing=1, ensemble_ids=1)


def test_a_version_is_asked_as_it_is(served: Served) -> None:
    before = counts(served)
    url = f"{served.server.settings.url}/v2/models/ensemble/versions/1/generate"
    answer = HTTP.post(url, json={"text_input": "Say it", "max_tokens": 4})
    assert answer.status_code == 200
    assert answer.json()["model_name"] == "ensemble"
    grows_by(served, before, preprocessing=1, postprocessing=1, ensemble=1)
