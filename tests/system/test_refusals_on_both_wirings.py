"""Every refusal of a request holds whatever engine is behind: a Python one, and the C++ backend.

One server each, with small limits and `decoupled_mode:false`, so that a check which one wiring has
and the other lacks is seen here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from support.serving import serve_demo
from support.standin import Script
from support.standin_server import serve
from trellis.grpc_client import generate, request_inputs
from trellis.server.process import Server

LIMITS = {
    "decoupled_mode": "false",
    "max_input_len": "16",
    "max_prompt_bytes": "60",
    "max_tokens_limit": "20",
    "max_prompts_per_request": "3",
    "max_words": "4",
    "max_word_characters": "10",
    "max_return_sequences": "2",
}
# Case -> (prompts, what is sent besides, how the message begins; several where it may be either).
CASES: dict[str, tuple[list[bytes], dict[str, Any], str | tuple[str, ...]]] = {
    "stream": (
        [b"Hi"],
        {"stream": True},
        "stream: this repository was made with decoupled_mode:false; leave it out",
    ),
    "empty prompt": ([b""], {}, "text_input: the prompt is empty; send some text"),
    "no UTF-8": ([b"a\xff"], {}, "text_input: not valid UTF-8 at byte 1"),
    "bytes": ([b"a" * 61], {}, "text_input: the prompt has 61 bytes; send at most 60 (max_prom"),
    "tokens": ([b"a b c d e f g h i j k l m n o p q"], {}, "text_input: the prompt has 1"),
    "prompts": ([b"Hi"] * 4, {}, "text_input: 4 prompts in one request; send at most 3 (max_pro"),
    "no max_tokens": ([b"Hi"], {"max_tokens": None}, "max_tokens: missing; send the number of"),
    "max_tokens 0": ([b"Hi"], {"max_tokens": 0}, "max_tokens: 0 is not allowed; send 1 or more"),
    "max_tokens": ([b"Hi"], {"max_tokens": 21}, "max_tokens: 21 tokens; send at most 20 (max_tok"),
    "end_id": ([b"Hi"], {"end_id": 10**6}, "end_id: 1000000 is not in the vocabulary; use 0 to"),
    "pad_id": ([b"Hi"], {"pad_id": -2}, "pad_id: -2 is not in the vocabulary; use 0 to"),
    "stop_token_ids": ([b"Hi"], {"stop_token_ids": [-1]}, "stop_token_ids: -1 is not in the voc"),
    "many ids": ([b"Hi"], {"stop_token_ids": [1, 2, 3, 4, 5]}, "stop_token_ids: 5 ids; send at m"),
    "stop_words": ([b"Hi"], {"stop_words": list("abcde")}, "stop_words: 5 words; send at most 4"),
    "bad_words": ([b"Hi"], {"bad_words": ["a" * 11]}, "bad_words: 11 characters in a word; send"),
    "weights": (
        [b"Hi"],
        {"embedding_bias_words": ["a", "b"], "embedding_bias_weights": [1.0]},
        "embedding_bias_weights: 1 weights for 2 embedding_bias_words; send one for each",
    ),
    "top_k": ([b"Hi"], {"top_k": -1}, "top_k: -1 is not allowed; send 0 (all) or more"),
    "top_p": ([b"Hi"], {"top_p": 7.0}, "top_p: 7.0 is not allowed; send 0 to 1"),
    "min_p": ([b"Hi"], {"min_p": 1.5}, "min_p: 1.5 is not allowed; send 0 (all) to 1"),
    "temperature": ([b"Hi"], {"temperature": -1.0}, "temperature: -1.0 is not allowed; send 0 (gr"),
    "nan": ([b"Hi"], {"temperature": float("nan")}, "temperature: nan is not allowed; send 0 (gr"),
    "repetition": (
        [b"Hi"],
        {"repetition_penalty": 0.0},
        "repetition_penalty: 0.0 is not allowed; send 0.01 to 100; 1 is none",
    ),
    "presence": ([b"Hi"], {"presence_penalty": float("inf")}, "presence_penalty: inf is not allo"),
    "frequency": (
        [b"Hi"],
        {"frequency_penalty": float("nan")},
        "frequency_penalty: nan is not allowed",
    ),
    "length alone": ([b"Hi"], {"length_penalty": 2.0}, "length_penalty: only means something wit"),
    "min_tokens": ([b"Hi"], {"min_tokens": 11}, "min_tokens: 11 is more than max_tokens, 10"),
    "min below 0": ([b"Hi"], {"min_length": -1}, "min_length: -1 is not allowed; send 0 or more"),
    "two names": (
        [b"Hi"],
        {"min_tokens": 1, "min_length": 2},
        ("min_length: 2 contradicts min_tokens: 1", "min_tokens: 1 contradicts min_length: 2"),
    ),
    "two seeds": (
        [b"Hi"],
        {"seed": 1, "random_seed": 2},
        ("random_seed: 2 contradicts seed: 1", "seed: 1 contradicts random_seed: 2"),
    ),
    "beam_width 0": ([b"Hi"], {"beam_width": 0}, "beam_width: 0 is not allowed; send 1 or more"),
    "beams": ([b"Hi"], {"beam_width": 500}, "beam_width: 500"),
    "sequences": (
        [b"Hi"],
        {"num_return_sequences": 3, "top_p": 0.9},
        "num_return_sequences: 3 sequences; send at most 2 (max_return_sequences)",
    ),
    "sequences 0": (
        [b"Hi"],
        {"num_return_sequences": 0},
        "num_return_sequences: 0 is not allowed; send 1 to 64",
    ),
    "decoder prompt": (
        [b"Hi"],
        {"decoder_text_input": b"Ho"},
        "decoder_text_input: this engine has no decoder prompt; leave it out",
    ),
    "stop": ([b"Hi"], {"stop": True}, "stop: needs the id of the request to end; send it as"),
}


@dataclass
class Wiring:
    server: Server
    client: triton.InferenceServerClient

    def refused(self, prompts: list[bytes], values: dict[str, Any], request_id: str = "") -> str:
        """The message that a request is answered with, over gRPC."""
        with pytest.raises(InferenceServerException) as error:
            list(generate(self.client, prompts, values, request_id, timeout=30))
        return str(error.value.message()).removeprefix("in ensemble 'ensemble', ")

    def post(self, way: str, **body: Any) -> httpx.Response:
        url = f"{self.server.settings.url}/v2/models/ensemble/{way}"
        return httpx.post(url, json=body, timeout=30)


@pytest.fixture(scope="module", params=["python", "0.12.0", "1.x"])
def wiring(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wiring]:
    folder = tmp_path_factory.mktemp("refusals")
    made = _python if request.param == "python" else _cpp
    yield from made(request, folder)


def _python(request: pytest.FixtureRequest, folder: Path) -> Iterator[Wiring]:
    with (
        serve_demo(request.getfixturevalue("demo_engine"), folder, LIMITS) as server,
        triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client,
    ):
        yield Wiring(server, client)


def _cpp(request: pytest.FixtureRequest, folder: Path) -> Iterator[Wiring]:
    library = request.getfixturevalue("standin_library")
    tokenizer = request.getfixturevalue("llama_folder")
    scripts = [Script(answer=[5, 6, 7])]
    with serve(request.param, folder, library, tokenizer, scripts, LIMITS) as served:
        yield Wiring(served.server, served.client)


@pytest.mark.promise("rejections")
@pytest.mark.parametrize("case", CASES)
def test_a_request_is_refused_by_the_fields_name(wiring: Wiring, case: str) -> None:
    prompts, values, message = CASES[case]
    sent = {name: v for name, v in ({"max_tokens": 10} | values).items() if v is not None}
    assert wiring.refused(prompts, sent).startswith(message)


@pytest.mark.parametrize("way", ["generate", "generate_stream"])
def test_a_stream_is_refused_with_status_400_where_a_model_answers_once(
    wiring: Wiring, way: str
) -> None:
    response = wiring.post(way, text_input="Hi", stream=True, max_tokens=5)
    assert response.status_code == 400, response.text
    assert "stream: this repository was made with decoupled_mode:false" in response.text


def test_a_batch_that_streams_is_refused_where_a_model_answers_once(wiring: Wiring) -> None:
    message = wiring.refused([b"Hi", b"Ho"], {"max_tokens": 5, "stream": True})
    assert message.startswith(("stream: this repository was made", "text_input: this engine"))


@pytest.mark.parametrize("name", ["stream", "stop"])
def test_prompts_that_differ_in_a_switch_of_the_whole_request_are_refused(
    wiring: Wiring, name: str
) -> None:
    inputs = request_inputs([b"Hi", b"Ho"], {"max_tokens": 5})
    switch = triton.InferInput(name, [2, 1], "BOOL")
    switch.set_data_from_numpy(np.array([[True], [False]]))
    with pytest.raises(InferenceServerException) as error:
        wiring.client.infer("ensemble", [*inputs, switch])
    message = str(error.value.message()).removeprefix("in ensemble 'ensemble', ")
    expected = f"{name}: the prompts of one request must share it"
    assert message == expected or message.startswith("text_input: this engine (TensorRT-LLM")
