# SPDX-License-Identifier: Apache-2.0
"""`/infer`: what tritonclient writes is read, and what is answered tritonclient reads."""

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st

from support.ensemble_model import ensemble_config
from trellis.gateway.body import prepare, read
from trellis.gateway.infer import (
    InferRequest,
    infer_answer,
    read_infer,
    split_body,
)
from trellis.gateway.limits import Limits
from trellis.gateway.models import Model, read_model
from trellis.gateway.outputs import read_outputs
from trellis.gateway.refusals import Refusal

Json = dict[str, Any]
Headers = list[tuple[bytes, bytes]]


def model_of(config: Json) -> Model:
    return read_model(config, lambda _: {"backend": "python"})


CONFIG = ensemble_config()
MODEL = model_of(CONFIG)
OUTPUTS = read_outputs(CONFIG)
DTYPES = {"BYTES": np.object_, "INT32": np.int32, "FP32": np.float32, "BOOL": np.bool_}
DTYPES |= {"UINT64": np.uint64}


def asked(body: bytes, headers: Headers | None = None, model: Model = MODEL) -> InferRequest:
    """A request that was read."""
    text, binary = split_body(headers or [], body)
    return read_infer(model, OUTPUTS, read(text), binary)


def refusal(body: bytes | Json, headers: Headers | None = None, model: Model = MODEL) -> str:
    """Why a request is rejected, always with status 400."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refusal) as caught:
        asked(sent, headers, model)
    assert caught.value.status == 400
    return caught.value.message


def tensor(name: str, array: np.ndarray, binary: bool) -> triton.InferInput:
    """An input as tritonclient sends it."""
    kind = MODEL.fields[name].kind
    made = triton.InferInput(name, list(array.shape), "BYTES" if kind == "STRING" else kind)
    return made.set_data_from_numpy(array, binary_data=binary)


def written(inputs: list[triton.InferInput], **options: Any) -> tuple[bytes, Headers]:
    """A body of tritonclient's, and the header that it sends with it."""
    body, length = triton.InferenceServerClient.generate_request_body(inputs, **options)
    lengths = [(b"Inference-Header-Content-Length", b"%d" % length)] if length else []
    return body, lengths


def arrays(rows: int) -> Json:
    """An array for an input of every type."""
    texts = np.array([["Hällo"], ["\x00\U0001f600"], [""]][:rows], np.object_)
    return {
        "text_input": np.char.encode(texts.astype(str), "utf-8").astype(np.object_),
        "max_tokens": np.arange(1, rows + 1, dtype=np.int32).reshape(rows, 1),
        "temperature": np.full((rows, 1), 0.1, np.float32),
        "seed": np.full((rows, 1), 2**64 - 1, np.uint64),
        "return_log_probs": np.array([[True], [False], [True]][:rows]),
    }


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_what_tritonclient_sends_is_read_as_a_body_of_generate(rows: int, binary: bool) -> None:
    sent = arrays(rows)
    body, headers = written([tensor(name, array, binary) for name, array in sent.items()])
    request = asked(body, headers)
    assert request.rows == rows
    values = {name: np.ravel(array).tolist() for name, array in sent.items()}
    values["text_input"] = [text.decode() for text in values["text_input"]]
    expected = values if rows > 1 else {name: value[0] for name, value in values.items()}
    assert request.values == expected
    generate = prepare(MODEL, request.generate_body(), "t" * 32, Limits(), once=True)
    assert generate.values == expected


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3),
    st.lists(st.floats(0, 100, width=32), min_size=1, max_size=1),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4),
    st.booleans(),
)
def test_any_text_and_number_comes_through(
    texts: list[str], floats: list[float], words: list[str], binary: bool
) -> None:
    rows = len(texts)
    inputs = {
        "text_input": np.array([[text.encode()] for text in texts], np.object_),
        "temperature": np.array([floats] * rows, np.float32),
    }
    if rows == 1:
        inputs["stop_words"] = np.array([[word.encode() for word in words]], np.object_)
    request = asked(*written([tensor(name, array, binary) for name, array in inputs.items()]))
    again = read(request.generate_body())
    assert again == request.values
    assert again["text_input"] in (texts, texts[0])  # numpy's own strings end before a NUL
    assert rows == 1 or again["text_input"] == texts
    assert np.ravel(again["temperature"]).tolist() == floats * rows
    if rows == 1:
        assert again["stop_words"] == words


def test_id_and_parameters_of_triton_are_read() -> None:
    inputs = [tensor("text_input", np.array([[b"Hi"]], np.object_), True)]
    body, headers = written(
        inputs, request_id="7", sequence_id=5, sequence_start=True, priority=2, timeout=9
    )
    request = asked(body, headers)
    assert (request.request_id, request.values) == ("7", {"text_input": "Hi"})
    assert json.loads(request.generate_body()) == {"id": "7", "text_input": "Hi"}
    assert request.wanted == dict.fromkeys(OUTPUTS, True)  # tritonclient's binary_data_output


def test_outputs_are_wanted_as_they_are_asked_for() -> None:
    inputs = [tensor("text_input", np.array([[b"Hi"]], np.object_), True)]
    wanted = [
        triton.InferRequestedOutput("text_output", binary_data=False),
        triton.InferRequestedOutput("cum_log_probs", binary_data=True),
    ]
    request = asked(*written(inputs, outputs=wanted))
    assert request.wanted == {"text_output": False, "cum_log_probs": True}


def test_a_stop_has_no_prompt() -> None:
    inputs = [tensor("stop", np.array([[True]]), True)]
    request = asked(*written(inputs, request_id="7"))
    assert json.loads(request.generate_body()) == {"id": "7", "stop": True}


def test_nested_data_are_the_flat_ones() -> None:
    for data in (["a", "b"], [["a"], ["b"]]):
        body = one("text_input", "BYTES", [2, 1], data)
        assert asked(json.dumps(body).encode()).values == {"text_input": ["a", "b"]}


def one(name: str, datatype: str, shape: Any, data: Any) -> Json:
    """A request with one input."""
    made = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return {"inputs": [made]}


PROMPT: Json = {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": ["Hi"]}


def with_input(**changed: Any) -> Json:
    """A request whose second input is wrong."""
    made = {"name": "max_tokens", "datatype": "INT32", "shape": [1, 1], "data": [4], **changed}
    return {"inputs": [PROMPT, {key: value for key, value in made.items() if value is not ...}]}


def with_output(parameters: Json) -> Json:
    """A request for the text with these parameters."""
    return {"inputs": [PROMPT], "outputs": [{"name": "text_output", "parameters": parameters}]}


WRONG: dict[str, tuple[Json, str]] = {
    "no inputs": ({}, "inputs: not a list of inputs; send text_input"),
    "empty inputs": ({"inputs": []}, "inputs: not a list of inputs"),
    "inputs that are no objects": ({"inputs": [1]}, "inputs: one has no name"),
    "a body of generate": ({"text_input": "Hi"}, "text_input: not known in a request to /infer"),
    "an unknown input": (
        with_input(name="max_tokns"),
        "max_tokns: no input of ensemble; did you mean max_tokens?",
    ),
    "another type": (with_input(datatype="INT64"), "max_tokens: datatype INT64; send INT32"),
    "no type": (with_input(datatype=...), "max_tokens: no datatype; send INT32"),
    "no shape": (with_input(shape=...), "max_tokens: shape no list of whole numbers; send [-1, 1]"),
    "another rank": (with_input(shape=[1]), "max_tokens: shape [1]; send [-1, 1]"),
    "another dim": (with_input(shape=[1, 2], data=[1, 2]), "max_tokens: shape [1, 2]; send"),
    "a dim of 0": (with_input(shape=[0, 1], data=[]), "max_tokens: shape [0, 1]; send"),
    "a dim below 0": (with_input(shape=[-1, 1]), "max_tokens: shape [-1, 1]; send"),
    "a dim that is no number": (with_input(shape=[True, 1]), "max_tokens: shape no list of whole"),
    "2^62 values": (with_input(shape=[2**62, 1]), "max_tokens: shape [46"),
    "2^34 values and no data": (with_input(shape=[2**34, 1], data=[]), "max_tokens: shape [17"),
    "no data": (with_input(data=...), "max_tokens: no list of data"),
    "data of one value": (with_input(data=4), "max_tokens: no list of data"),
    "deep data": (with_input(data=[[[4]]]), "max_tokens: lists in a list are not understood"),
    "mixed data": (with_input(data=[4, [5]]), "max_tokens: data mix lists and values"),
    "too large": (with_input(data=[2**31]), "max_tokens: 2147483648 is out of range"),
    "a text for a number": (with_input(data=["4"]), 'max_tokens: "4" is not a whole number'),
    "twice": ({"inputs": [PROMPT, PROMPT]}, "text_input: given twice"),
    "another batch": (
        with_input(shape=[2, 1], data=[4, 5]),
        "max_tokens: a batch of 2, but text_input has 1",
    ),
    "shared memory": (
        with_input(data=..., parameters={"shared_memory_region": "x"}),
        "max_tokens: shared memory is not read here",
    ),
    "an unknown parameter": (
        with_input(parameters={"x": 1}),
        "max_tokens: x is not known of an input",
    ),
    "an unknown key": (with_input(classification=1), "max_tokens: classification is not known of"),
    "data twice": (
        with_input(parameters={"binary_data_size": 4}),
        "max_tokens: data and binary_data_size are given",
    ),
    "a size below 0": (
        with_input(data=..., parameters={"binary_data_size": -1}),
        "max_tokens: binary_data_size is not a whole number",
    ),
    "binary data that are missing": (
        with_input(data=..., parameters={"binary_data_size": 4}),
        "max_tokens: binary_data_size is 4, but 0 bytes are left",
    ),
    "a stream": (
        with_input(name="stream", datatype="BOOL", data=[True]),
        "stream: /infer gives one response; send it to /generate_stream",
    ),
    "logits": (
        with_input(name="return_context_logits", datatype="BOOL", data=[True]),
        "return_context_logits: not possible by /infer over HTTP; ask by gRPC",
    ),
    "FP16": (
        with_input(name="lora_weights", datatype="FP16", shape=[1, 1, 1], data=[1.0]),
        "lora_weights: FP16 cannot be sent over HTTP; send it by gRPC",
    ),
    "classification": (
        with_output({"classification": 1}),
        "text_output: classification is not possible here",
    ),
    "shared memory for an output": (
        with_output({"shared_memory_offset": 1}),
        "text_output: shared memory is not written here",
    ),
    "an unknown output": (
        {"inputs": [PROMPT], "outputs": [{"name": "x"}]},
        "x: no output of ensemble; it has text_output, ",
    ),
    "an output twice": (
        {"inputs": [PROMPT], "outputs": [{"name": "text_output"}] * 2},
        "text_output: asked for twice",
    ),
    "outputs that are no list": ({"inputs": [PROMPT], "outputs": {}}, "outputs: not a list"),
    "an unknown parameter of the request": (
        {"inputs": [PROMPT], "parameters": {"x": 1}},
        "parameters: x is not known here",
    ),
    "headers among the parameters": (
        {"inputs": [PROMPT], "parameters": {"headers": "x"}},
        "parameters: headers is not known here",
    ),
    "an id that is a number": ({"id": 7, "inputs": [PROMPT]}, "id: not a string"),
    "an id with half a character": ({"id": "\ud800", "inputs": [PROMPT]}, "id: \\ud800 at"),
    "words for several prompts": (
        {
            "inputs": [
                {**PROMPT, "shape": [2, 1], "data": ["a", "b"]},
                {"name": "stop_words", "datatype": "BYTES", "shape": [2, 1], "data": ["x", "y"]},
            ]
        },
        "stop_words: not possible for 2 prompts at once over HTTP",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_rejected_by_name(case: str) -> None:
    body, message = WRONG[case]
    assert refusal(body).startswith(message)


def binary_body(size: int, data: bytes, shape: list[int] | None = None) -> tuple[bytes, Headers]:
    """A prompt of binary data."""
    head = {key: value for key, value in PROMPT.items() if key != "data"}
    head |= {"parameters": {"binary_data_size": size}, "shape": shape or [1, 1]}
    text = json.dumps({"inputs": [head]}).encode()
    return text + data, [(b"inference-header-content-length", b"%d" % len(text))]


@pytest.mark.parametrize(
    ("size", "data", "message"),
    [
        (6, b"\2\0\0\0Hi?", "binary_data_size: the inputs have 6 bytes together, but 7 follow"),
        (7, b"\2\0\0\0Hi", "text_input: binary_data_size is 7, but 6 bytes are left"),
        (6, b"\3\0\0\0Hi", "text_input: a text goes beyond binary_data_size"),
        (6, b"\xff\xff\xff\xffHi", "text_input: a text goes beyond binary_data_size"),
        (2, b"\0\0", "text_input: a text goes beyond binary_data_size"),
        (0, b"", "text_input: 0 values, but the shape is for 1"),
        (8, b"\0\0\0\0" * 2, "text_input: 2 values, but the shape is for 1"),
        (6, b"\2\0\0\0\xc3(", "text_input: not valid UTF-8 at byte 0"),
    ],
)
def test_wrong_binary_text_is_rejected(size: int, data: bytes, message: str) -> None:
    assert refusal(*binary_body(size, data)).startswith(message)


@pytest.mark.parametrize(
    ("name", "datatype", "data", "message"),
    [
        ("max_tokens", "INT32", b"\0" * 8, "max_tokens: binary_data_size is 8, but 1 values of"),
        ("temperature", "FP32", struct.pack("<f", math.inf), "temperature: inf is out of range"),
        ("temperature", "FP32", struct.pack("<f", math.nan), "temperature: nan is out of range"),
        ("stop", "BOOL", b"\2", "stop: a byte of BOOL is neither 0 nor 1"),
    ],
)
def test_wrong_binary_numbers_are_rejected(
    name: str, datatype: str, data: bytes, message: str
) -> None:
    made: Json = {"name": name, "datatype": datatype, "shape": [1, 1]}
    made["parameters"] = {"binary_data_size": len(data)}
    head = {"inputs": [PROMPT, made]}
    text = json.dumps(head).encode()
    headers = [(b"inference-header-content-length", b"%d" % len(text))]
    assert refusal(text + data, headers).startswith(message)


@pytest.mark.parametrize("length", [b"0", b"-1", b"99999", b"1" * 30, b"x", b"", b"1.0", b"\xb2"])
def test_a_wrong_length_of_the_json_is_rejected(length: bytes) -> None:
    headers = [(b"Inference-Header-Content-Length", length)]
    assert refusal({"inputs": [PROMPT]}, headers).startswith("Inference-Header-Content-Length: ")


def test_a_length_that_is_given_twice_is_rejected() -> None:
    body = json.dumps({"inputs": [PROMPT]}).encode()
    headers = [(b"inference-header-content-length", b"%d" % len(body))] * 2
    assert refusal(body, headers).startswith("Inference-Header-Content-Length: ")


KEYS = ["name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id"]
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KNOWN = st.sampled_from(["text_input", "BYTES", [1, 1], "text_output"])
ANYTHING = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner | KNOWN, max_size=5)
    ),
    max_leaves=20,
)


@given(ANYTHING, st.binary(max_size=12))
def test_whatever_is_sent_is_read_or_rejected_by_name(body: Any, binary: bytes) -> None:
    sent = body if isinstance(body, dict) else {"inputs": [body], "outputs": body}
    said = "values: read"
    try:
        assert read_infer(MODEL, OUTPUTS, sent, binary).values
    except Refusal as refused:
        said = refused.message
    assert ": " in said


GENERATED: Json = {  # what Triton's `/generate` answered for two prompts of two beams
    "model_name": "ensemble",
    "model_version": "1",
    "sequence_end": False,
    "sequence_id": 0,
    "sequence_start": False,
    "text_output": ["a\x00", "Hällo", "", "\U0001f600"],
    "cum_log_probs": [-0.5, -0.10000000149011612, -3.0, -4.25],
    "output_log_probs": [-0.5] * 12,
    "num_input_tokens": [7, 9],
    "finish_reason": ["length", "length", "stop", "stop"],
}
SHAPES = {
    "text_output": (4,),
    "cum_log_probs": (2, 2),
    "output_log_probs": (2, 2, 3),
    "num_input_tokens": (2, 1),
    "finish_reason": (2, 2),
}


def answered(request: InferRequest, generated: Json) -> triton.InferResult:
    """An answer as tritonclient reads it."""
    headers, body = infer_answer(request, OUTPUTS, json.dumps(generated).encode())
    length = dict(headers).get(b"inference-header-content-length")
    return triton.InferenceServerClient.parse_response_body(
        body, header_length=int(length) if length else None
    )


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_reads_the_answer(binary: bool) -> None:
    request = InferRequest({}, "7", 2, dict.fromkeys(OUTPUTS, binary))
    result = answered(request, GENERATED)
    for name, shape in SHAPES.items():
        array = result.as_numpy(name)
        assert array.shape == shape
        assert result.get_output(name)["datatype"] == OUTPUTS[name].datatype
        found = np.ravel(array).tolist()
        if OUTPUTS[name].kind == "STRING":
            found = [text.decode() if isinstance(text, bytes) else text for text in found]
        expected = GENERATED[name]
        if OUTPUTS[name].kind == "FP32":
            expected = np.array(expected, np.float32).tolist()
        assert found == expected
    response = result.get_response()
    assert (response["id"], response["model_name"]) == ("7", "ensemble")
    assert {output["name"] for output in response["outputs"]} == SHAPES.keys()


def test_one_value_of_generate_is_an_array_of_one() -> None:
    request = InferRequest({}, "", 1, {"text_output": True, "num_input_tokens": False})
    generated = {"text_output": "Hi", "num_input_tokens": 3, "model_name": "ensemble"}
    result = answered(request, generated)
    assert result.as_numpy("text_output").tolist() == [b"Hi"]
    assert result.as_numpy("num_input_tokens").tolist() == [[3]]
    assert "id" not in result.get_response()


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5),
    st.booleans(),
)
def test_any_text_is_answered(texts: list[str], binary: bool) -> None:
    request = InferRequest({}, "", len(texts), {"text_output": binary})
    given_texts: Any = texts if len(texts) > 1 else texts[0]
    array = answered(request, {"text_output": given_texts}).as_numpy("text_output")
    found = [text.decode() if isinstance(text, bytes) else text for text in array.tolist()]
    assert found == texts


def test_an_error_is_no_answer() -> None:
    request = InferRequest({}, "", 1, {"text_output": True})
    with pytest.raises(Refusal, match=r"top_p: 7\.0"):
        infer_answer(request, OUTPUTS, b'{"error": "top_p: 7.0 is not allowed"}')


def test_an_output_whose_shape_json_does_not_tell_is_rejected_by_name() -> None:
    request = InferRequest({}, "", 1, {"generation_logits": True})
    answer = json.dumps({"text_output": "a", "generation_logits": [0.5] * 6}).encode()
    with pytest.raises(Refusal, match="generation_logits: not possible by /infer"):
        infer_answer(request, OUTPUTS, answer)


def test_a_model_without_batches_has_no_batch_in_its_shapes() -> None:
    config = {**CONFIG, "max_batch_size": 0}
    model, outputs = model_of(config), read_outputs(config)
    body = one("text_input", "BYTES", [1], ["Hi"])
    request = read_infer(model, outputs, body, b"")
    assert request.values == {"text_input": "Hi"}
    assert outputs["num_input_tokens"].shape(1, 1, 1) == [1]
    assert outputs["cum_log_probs"].shape(2, 1, 2) == [2]
    assert outputs["output_log_probs"].shape(6, 1, 2) == [2, 3]
