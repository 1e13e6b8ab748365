"""The three models asked one after the other, as TensorRT-LLM's own clients do: no key anywhere."""

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from httpx import Client
from tritonclient.utils import InferenceServerException

from support.asking import ask, tensor
from trellis.grpc_client import generate
from trellis.server.process import Server

PROMPT = "The capital of France is"
Arrays = dict[str, np.ndarray]


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as made:
        yield made


def int32(name: str, values: Any) -> triton.InferInput:
    return tensor(name, "INT32", np.array(values, np.int32))


def prepared(client: triton.InferenceServerClient, text: str = PROMPT) -> triton.InferResult:
    """What `preprocessing` makes of a prompt."""
    query = tensor("QUERY", "BYTES", np.array([[text.encode()]], np.object_))
    return client.infer("preprocessing", [query, int32("REQUEST_OUTPUT_LEN", [[8]])])


def made(
    client: triton.InferenceServerClient, inputs: list[triton.InferInput], request_id: str = ""
) -> list[Arrays]:
    """Every response of `tensorrt_llm`."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    client.start_stream(lambda result, error: answers.put(error or result))
    client.async_stream_infer("tensorrt_llm", inputs, request_id=request_id)
    client.stop_stream()
    found: list[Arrays] = []
    while not answers.empty():
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        names = [output.name for output in answer.get_response().outputs]
        found.append({name: answer.as_numpy(name) for name in names})
    return found


def engine_inputs(client: triton.InferenceServerClient) -> list[triton.InferInput]:
    """Of NVIDIA's end_to_end_test.py: all that `preprocessing` gave."""
    given = prepared(client)
    names = {
        "input_ids": "INPUT_ID",
        "input_lengths": "REQUEST_INPUT_LEN",
        "request_output_len": "REQUEST_OUTPUT_LEN",
        "decoder_input_ids": "DECODER_INPUT_ID",
        "end_id": "OUT_END_ID",
        "pad_id": "OUT_PAD_ID",
    }
    return [int32(name, given.as_numpy(output)) for name, output in names.items()]


def text_of(client: triton.InferenceServerClient, answer: Arrays) -> bytes:
    """What `postprocessing` makes of an answer's ids and lengths."""
    inputs = [int32("TOKENS_BATCH", answer["output_ids"])]
    inputs.append(int32("SEQUENCE_LENGTH", answer["sequence_length"]))
    texts = client.infer("postprocessing", inputs).as_numpy("OUTPUT")
    assert texts.shape == (1,)
    return bytes(texts[0])


def test_the_decoders_inputs_are_one_padding_id(client: triton.InferenceServerClient) -> None:
    given = prepared(client)
    assert given.as_numpy("DECODER_INPUT_ID").tolist() == given.as_numpy("OUT_PAD_ID").tolist()
    assert given.as_numpy("REQUEST_DECODER_INPUT_LEN").tolist() == [[1]]


def test_the_models_in_turn_say_what_the_ensemble_says(
    client: triton.InferenceServerClient, http: Client
) -> None:
    (answer,) = made(client, engine_inputs(client))
    assert answer["sequence_length"].tolist() == [[answer["output_ids"].shape[2]]]
    assert "stream_key" not in answer
    assert text_of(client, answer).decode() == ask(http, PROMPT, max_tokens=8)["text_output"]


def test_three_tensors_are_enough_for_the_engine(client: triton.InferenceServerClient) -> None:
    inputs = engine_inputs(client)[:3]
    (answer,) = made(client, inputs)
    assert answer["output_ids"].shape == (1, 1, 8)
    chunks = made(client, [*inputs, tensor("streaming", "BOOL", np.array([[True]]))])
    lengths = [chunk["sequence_length"].item() for chunk in chunks]
    assert lengths == [chunk["output_ids"].shape[2] for chunk in chunks]
    assert sum(lengths) == 8


def test_ids_without_a_key_are_a_whole_answer_each_time(
    client: triton.InferenceServerClient,
) -> None:
    ids = prepared(client, "naïve 😀").as_numpy("INPUT_ID")
    for _ in range(2):
        answer = client.infer("postprocessing", [int32("TOKENS_BATCH", ids[:, None])])
        assert answer.as_numpy("OUTPUT").tolist() == ["naïve 😀".encode()]
    part = client.infer(
        "postprocessing",
        [int32("TOKENS_BATCH", ids[:, None]), int32("SEQUENCE_LENGTH", [[1]])],
    )
    assert len(part.as_numpy("OUTPUT")[0]) < len("naïve 😀".encode())


def test_a_key_without_an_end_is_refused_by_name(client: triton.InferenceServerClient) -> None:
    key = tensor("STREAM_KEY", "UINT64", np.array([[7]], np.uint64))
    with pytest.raises(InferenceServerException, match="STREAM_END: missing"):
        client.infer("postprocessing", [int32("TOKENS_BATCH", [[[5]]]), key])


def test_a_stop_needs_no_key(client: triton.InferenceServerClient) -> None:
    inputs = [
        int32("input_ids", [[0]]),
        int32("input_lengths", [[0]]),
        int32("request_output_len", [[0]]),
    ]
    stop = tensor("stop", "BOOL", np.array([[True]]))
    (answer,) = made(client, [*inputs, stop], "nobody")
    assert answer["output_ids"].shape == (1, 1, 0)


def test_a_decoders_prompt_is_refused_by_name(client: triton.InferenceServerClient) -> None:
    inputs = [*engine_inputs(client)[:3], int32("decoder_input_ids", [[1, 2]])]
    with pytest.raises(InferenceServerException, match="decoder_input_ids: this engine has no"):
        made(client, inputs)


def test_names_of_outputs_that_no_python_engine_has_may_be_asked_for(
    client: triton.InferenceServerClient,
) -> None:
    config = client.get_model_config("ensemble").config
    shown = {output.name for output in config.output}
    kept = [f"kv_cache_{kind}_blocks" for kind in ("alloc_new", "reused", "alloc_total")]
    names = ["text_output", "context_logits", "generation_logits", *kept]
    assert shown >= set(names)
    (answer,) = generate(client, [PROMPT.encode()], {"max_tokens": 4}, outputs=names)
    assert set(answer) == {"text_output"}
