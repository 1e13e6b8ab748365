"""Every sampling input gives what the engine library itself gives for it, alone in the batch."""

import functools
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from _pytest.mark import ParameterSet

from support.asking import ask, chat, refused, stream
from support.engines import END, ENGINE, needs
from support.library import ENDING, MAX_TOKENS, Library
from trellis.grpc_client import generate
from trellis.server.process import Server

STORY = "Once upon a time, in a village by the sea,"
FACTS = "The capital of France is"
SAMPLED = {"do_sample": True, "rng_seed": 7}  # OpenVINO's
DRAWN = {"temperature": 1.0, "seed": 7}  # vLLM's
UNENDING: dict[str, dict[str, Any]] = {
    "openvino": {"logprobs": 1, "ignore_eos": True},
    "vllm": {"logprobs": 0, "ignore_eos": True},
}


@dataclass(frozen=True)
class Case:
    """What a client sends, and the fields of the libraries' own settings that mean the same."""

    client: dict[str, Any]
    openvino: dict[str, Any]  # of GenerationConfig
    vllm: dict[str, Any] | None  # of SamplingParams; None: it does not have this
    prompt: str = STORY
    changes: bool = True  # whether the text differs from the greedy one

    @property
    def fields(self) -> dict[str, Any]:
        """Of the engine that is tested."""
        return {"openvino": self.openvino, "vllm": self.vllm}[ENGINE] or {}


def cases(of: dict[str, Case]) -> list[ParameterSet]:
    """Parameters of a test: those that an engine does not have are skipped where it is tested."""
    beams = needs("search over beams")
    return [
        pytest.param(case, id=name, marks=(beams,) if case.vllm is None else ())
        for name, case in of.items()
    ]


def without(*words: str) -> Any:
    """The library's structured output that keeps out these words."""
    if ENGINE != "openvino":
        return None
    import openvino_genai as genai

    quoted = ",".join(f'"{word}"' for word in words)
    tail = f"loop_after_dispatch=true,excludes=({quoted})"
    return genai.StructuredOutputConfig(
        grammar=f"root ::= TagDispatch(stop_eos=true,stop_str=(),{tail})"
    )


PENALTIES = {"repetition_penalty": 1.1, "presence_penalty": -0.5, "frequency_penalty": 0.75}
WARM = {"temperature": 1.2, "top_k": 40, "top_p": 0.8, "repetition_penalty": 1.2}
CASES = {
    "nothing": Case({}, {}, {}, changes=False),
    "top_k 1": Case({"top_k": 1, "seed": 9}, {}, {}, changes=False),
    "temperature 0": Case({"temperature": 0, "seed": 9}, {}, {}, changes=False),
    "max_tokens": Case({"max_tokens": 5}, {"max_new_tokens": 5}, {"max_tokens": 5}),
    "end_id": Case(
        {"end_id": 28},
        {"eos_token_id": 28, "stop_token_ids": {28}},
        {"stop_token_ids": [28]},
    ),
    "end_id none": Case(
        {"end_id": -1, "max_tokens": 40},
        {"ignore_eos": True, "eos_token_id": -1, "stop_token_ids": set(), "max_new_tokens": 40},
        {"stop_token_ids": [], "max_tokens": 40},
        chat("What is the capital of France?"),
    ),
    "min_tokens": Case(
        {"min_tokens": 40, "max_tokens": 60},
        {"min_new_tokens": 40, "max_new_tokens": 60},
        {"min_tokens": 40, "max_tokens": 60},
        chat("What is the capital of France?"),
    ),
    "min_length": Case(
        {"min_length": 40, "max_tokens": 60},
        {"min_new_tokens": 40, "max_new_tokens": 60},
        {"min_tokens": 40, "max_tokens": 60},
        chat("What is the capital of France?"),
    ),
    **{
        f"{name} {value}": Case({name: value}, {name: value}, {name: value})
        for name, value in (
            ("repetition_penalty", 1.3),
            ("presence_penalty", 1.5),
            ("frequency_penalty", 1.25),
        )
    },
    "all penalties": Case(PENALTIES, PENALTIES, PENALTIES),
    "temperature": Case(
        {"temperature": 0.7, "seed": 7},
        SAMPLED | {"temperature": 0.7},
        {"temperature": 0.7, "seed": 7},
    ),
    "top_k": Case({"top_k": 20, "seed": 7}, SAMPLED | {"top_k": 20}, DRAWN | {"top_k": 20}),
    "top_p": Case({"top_p": 0.9, "seed": 7}, SAMPLED | {"top_p": 0.9}, DRAWN | {"top_p": 0.9}),
    "min_p": Case({"min_p": 0.2, "seed": 7}, SAMPLED | {"min_p": 0.2}, DRAWN | {"min_p": 0.2}),
    "random_seed": Case(
        {"top_p": 0.9, "random_seed": 2**40 + 1},
        SAMPLED | {"top_p": 0.9, "rng_seed": 2**40 + 1},
        DRAWN | {"top_p": 0.9, "seed": 2**40 + 1},
    ),
    "all of sampling": Case(WARM | {"seed": 7}, SAMPLED | WARM, DRAWN | WARM),
    "num_return_sequences": Case(
        {"num_return_sequences": 3, "temperature": 0.9, "seed": 7},
        SAMPLED | {"num_return_sequences": 3, "temperature": 0.9},
        DRAWN | {"n": 3, "temperature": 0.9},
    ),
    "bad_words": Case(
        {"bad_words": ["Paris", "located"]},
        {"structured_output_config": without("Paris", "located")},
        {"bad_words": ["Paris", "located"]},
        FACTS,
    ),
    "beam_width": Case(
        {"beam_width": 4},
        {"num_beams": 4, "num_return_sequences": 4},
        None,
    ),
    "no_repeat_ngram_size": Case(
        {"beam_width": 3, "no_repeat_ngram_size": 2, "max_tokens": 60},
        {
            "num_beams": 3,
            "num_return_sequences": 3,
            "no_repeat_ngram_size": 2,
            "max_new_tokens": 60,
        },
        None,
    ),
    "length_penalty": Case(
        {"beam_width": 3, "length_penalty": -2.0, "max_tokens": 40},
        {"num_beams": 3, "num_return_sequences": 3, "length_penalty": -2.0, "max_new_tokens": 40},
        None,
        chat("What is the capital of France?"),
    ),
}


@pytest.mark.promise("sampling")
@pytest.mark.parametrize("case", cases(CASES))
def test_the_text_is_the_library_s(http: httpx.Client, library: Library, case: Case) -> None:
    most = MAX_TOKENS[ENGINE]
    fields = {most: 32} | ENDING | case.fields
    expected = texts_of(library, case.prompt, fields)
    answer = ask(http, case.prompt, **case.client)["text_output"]
    found = answer if len(expected) > 1 else [answer]
    if "num_return_sequences" in case.client:  # OpenVINO has them in another order
        assert len(set(found)) == 3
        found, expected = sorted(found), sorted(expected)
    assert found == expected
    if case.changes:
        plain = ENDING | {most: fields[most]}
        if case.client.keys() & {"max_tokens", "end_id"} and len(case.client) == 1:
            plain[most] = 32
        assert expected[0] != texts_of(library, case.prompt, plain)[0]


def texts_of(library: Library, prompt: str, fields: dict[str, Any]) -> list[str]:
    """The library's texts, the best first where it searched over beams."""
    (outputs,) = library.ask([prompt], **fields)
    if "num_beams" in fields:
        outputs.sort(key=lambda output: -output.score)
    ended = fields["stop_token_ids"]  # an end token that has a text is no part of the answer
    ids = [each.ids[:-1] if each.ids[-1] in ended else each.ids for each in outputs]
    return [library.tokenizer.decode(each) for each in ids]


LOG_PROBS = {
    "greedy": Case({}, {}, {}),
    "penalty": Case(
        {"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}
    ),
    "sampled": Case(
        {"temperature": 0.7, "seed": 7},
        SAMPLED | {"temperature": 0.7},
        DRAWN | {"temperature": 0.7},
    ),
    "top_k": Case({"top_k": 5, "seed": 7}, SAMPLED | {"top_k": 5}, DRAWN | {"top_k": 5}),
    "sequences": Case(
        {"num_return_sequences": 3, "temperature": 0.9, "seed": 7},
        SAMPLED | {"num_return_sequences": 3, "temperature": 0.9},
        DRAWN | {"n": 3, "temperature": 0.9},
    ),
    "beams": Case({"beam_width": 3}, {"num_beams": 3, "num_return_sequences": 3}, None),
}
if ENGINE == "openvino":  # vLLM's own are of the model before its bad words are taken out
    LOG_PROBS["bad_words"] = Case(
        {"bad_words": ["Paris", "there"]},
        {"structured_output_config": without("Paris", "there")},
        {},
    )


@pytest.mark.parametrize("case", cases(LOG_PROBS))
def test_log_probabilities_are_the_library_s(
    http: httpx.Client, library: Library, case: Case
) -> None:
    fields, end_id = {MAX_TOKENS[ENGINE]: 12} | UNENDING[ENGINE] | case.fields, -1
    if "bad_words" in case.client:
        fields, end_id = fields | ENDING, END
        fields["ignore_eos"] = False
    (outputs,) = library.ask([STORY], **fields)
    if "num_beams" in fields:
        outputs.sort(key=lambda output: -output.score)
    asked = case.client | {"max_tokens": 12, "return_log_probs": True, "end_id": end_id}
    answer = ask(http, STORY, **asked)
    each = np.asarray(answer["output_log_probs"], np.float32).reshape(len(outputs), 12)
    cumulative = np.asarray(answer["cum_log_probs"], np.float32).reshape(len(outputs))
    found = list(zip(cumulative.tolist(), each.tolist(), strict=True))
    expected = []
    for output in outputs:
        total = sum(output.log_probs) if "num_beams" in fields else output.score
        of_tokens = np.asarray(output.log_probs, np.float32).tolist()
        expected.append((float(np.float32(total)), of_tokens))
    if "num_return_sequences" in case.client:  # OpenVINO has them in another order
        found, expected = sorted(found), sorted(expected)
    assert found == expected


def test_a_stream_of_one_sequence_is_the_same_text_and_the_same_log_probabilities(
    server: Server, http: httpx.Client
) -> None:
    values = {"max_tokens": 20, "top_k": 30, "seed": 5, "end_id": -1, "return_log_probs": True}
    whole = ask(http, STORY, **values)
    text, cumulative = "", 0.0
    each: list[float] = []
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        for response in generate(client, [STORY.encode()], values | {"stream": True}):
            text += response["text_output"].item().decode()
            each += response["output_log_probs"].reshape(-1).tolist()
            cumulative = response["cum_log_probs"].item()
    assert text == whole["text_output"]
    assert (
        np.asarray(each, np.float32).tolist()
        == np.asarray(whole["output_log_probs"], np.float32).tolist()
    )
    assert np.float32(cumulative) == np.float32(np.reshape(whole["cum_log_probs"], -1)[0])


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"num_return_sequences": 3, "temperature": 0.9, "seed": 7}, id="sequences"),
        pytest.param({"beam_width": 3}, id="beams", marks=needs("search over beams")),
    ],
)
def test_a_stream_of_several_sequences_is_each_under_its_index(
    server: Server, http: httpx.Client, asked: dict[str, Any]
) -> None:
    whole = ask(http, STORY, **asked)["text_output"]
    found = ["", "", ""]
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        values = asked | {"max_tokens": 32, "stream": True}
        for response in generate(client, [STORY.encode()], values):
            index = response["sequence_index"].item()
            found[index] += response["text_output"].item().decode()
    assert found == whole


def test_bad_words_are_kept_out_of_streams_and_of_every_row(
    server: Server, http: httpx.Client
) -> None:
    words = ["Paris", " the", "세계", "😀"]
    free = ask(http, FACTS)["text_output"]
    assert "Paris" in free
    chunks = stream(http, FACTS, bad_words=words)
    assert b"".join(chunks).decode() == ask(http, FACTS, bad_words=words)["text_output"] != free
    prompts = [FACTS, STORY, "안녕하세요 세계 😀. 안녕하세요 세계 😀. 안녕하세요"]
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        values = {"max_tokens": 32, "bad_words": words, "end_id": -1, "temperature": 1.3, "seed": 3}
        (response,) = generate(client, [prompt.encode() for prompt in prompts], values)
    texts = [text.decode() for text in response["text_output"].reshape(-1)]
    assert len(texts) == 3
    assert not [(word, text) for word in words for text in texts if word in text]


def test_one_string_of_bad_words_is_read_as_values(http: httpx.Client) -> None:
    asked = functools.partial(ask, http, FACTS)
    assert asked(bad_words=["Paris,located"]) == asked(bad_words=["Paris", "located"])
    assert asked(bad_words=[""]) == asked()


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "several greedy sequences": ("num_return_sequences", {"num_return_sequences": 2}),
    "many bad words": ("bad_words", {"bad_words": ["x"] * 33}),
    "long bad words": ("bad_words", {"bad_words": ["x" * 200, "y" * 57]}),
    "many beams": ("beam_width", {"beam_width": 17}),
    "beams that sample": ("beam_width", {"beam_width": 2, "temperature": 0.5}),
    "beams with a penalty": ("beam_width", {"beam_width": 2, "repetition_penalty": 1.5}),
    "beams with bad words": ("beam_width", {"beam_width": 2, "bad_words": ["x"]}),
    "beams and sequences": ("beam_width", {"beam_width": 2, "num_return_sequences": 2}),
    "length_penalty alone": ("length_penalty", {"length_penalty": 2.0}),
}
if ENGINE != "llmapi":  # which takes any
    REFUSED |= {
        "presence_penalty beyond 2": ("presence_penalty", {"presence_penalty": 2.5}),
        "frequency_penalty below -2": ("frequency_penalty", {"frequency_penalty": -2.5}),
    }
if ENGINE == "openvino":  # the others have both
    REFUSED |= {
        "embedding_bias": (
            "embedding_bias_words",
            {"embedding_bias_words": ["yes"], "embedding_bias_weights": [1.0]},
        ),
        "ngrams without beams": ("no_repeat_ngram_size", {"no_repeat_ngram_size": 2}),
        "sequences with bad words": (
            "num_return_sequences",
            {"num_return_sequences": 2, "temperature": 0.9, "bad_words": ["x"]},
        ),
    }


@pytest.mark.promise("sampling")
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_work_is_refused_by_name(http: httpx.Client, name: str) -> None:
    field, values = REFUSED[name]
    message = refused(http, {"text_input": "Hello", "parameters": {"max_tokens": 4} | values})
    assert message.startswith(f"in ensemble 'ensemble', {field}: ")
