"""Ranks and types of the outputs over gRPC: those of TensorRT-LLM's own ensembles.

Their `postprocessing` gives one text a sequence in one dimension, whatever the batch; the other
outputs come from the engine: [rows, ...].
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from support.engines import needs
from trellis.grpc_client import generate
from trellis.server.process import Server

PROMPTS = [b"The capital of France is", b"Once upon a time", b"I have a"]


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as made:
        yield made


def shapes(response: dict[str, np.ndarray]) -> dict[str, Any]:
    """Name -> (type, shape) of every output that came."""
    return {name: (array.dtype.name, array.shape) for name, array in response.items()}


def test_the_text_of_one_prompt_has_one_dimension(client: triton.InferenceServerClient) -> None:
    (response,) = generate(client, PROMPTS[:1], {"max_tokens": 4})
    assert shapes(response) == {"text_output": ("object", (1,))}


def test_the_texts_of_a_batch_have_one_dimension(client: triton.InferenceServerClient) -> None:
    (response,) = generate(client, PROMPTS, {"max_tokens": 4})
    assert shapes(response)["text_output"] == ("object", (3,))


def test_several_sequences_stand_row_after_row(client: triton.InferenceServerClient) -> None:
    values = {"max_tokens": 8, "num_return_sequences": 2, "top_p": 0.9, "seed": 3}
    alone = [next(iter(generate(client, [prompt], values))) for prompt in PROMPTS]
    assert [answer["text_output"].shape for answer in alone] == [(2,)] * 3
    (prompted,) = generate(
        client, PROMPTS, values | {"exclude_input_in_output": False, "max_tokens": 2}
    )
    texts = prompted["text_output"].tolist()
    assert [text.startswith(PROMPTS[at // 2]) for at, text in enumerate(texts)] == [True] * 6


@needs("search over beams")
def test_beams_stand_row_after_row(client: triton.InferenceServerClient) -> None:
    (response,) = generate(client, PROMPTS, {"max_tokens": 4, "beam_width": 2})
    assert response["text_output"].shape == (6,)


@pytest.mark.parametrize("rows", [1, 3])
def test_every_chunk_of_a_stream_has_one_text(
    client: triton.InferenceServerClient, rows: int
) -> None:
    values = {"max_tokens": 4, "stream": True, "return_log_probs": True, "end_id": -1}
    chunks = list(generate(client, PROMPTS[:rows], values))
    assert len(chunks) > rows
    for chunk in chunks:
        ids = chunk["output_log_probs"].shape[-1]
        expected = {
            "text_output": ("object", (1,)),
            "cum_log_probs": ("float32", (1, 1)),
            "output_log_probs": ("float32", (1, 1, ids)),
        }
        if rows > 1:
            expected |= dict.fromkeys(("batch_index", "sequence_index"), ("int32", (1, 1)))
        assert shapes(chunk) == expected


def test_the_other_outputs_have_a_batch_dimension(client: triton.InferenceServerClient) -> None:
    flags = ("log_probs", "num_input_tokens", "num_output_tokens", "finish_reason")
    values = {"max_tokens": 4, **{f"return_{name}": True for name in flags}}
    (response,) = generate(client, PROMPTS, values)
    assert shapes(response) == {
        "text_output": ("object", (3,)),
        "cum_log_probs": ("float32", (3, 1)),
        "output_log_probs": ("float32", (3, 1, 4)),
        "num_input_tokens": ("int32", (3, 1)),
        "num_output_tokens": ("int32", (3, 1)),
        "finish_reason": ("object", (3, 1)),
    }
