"""Requests made up by hypothesis: whatever is sent, the server stays whole and exact.

No crash, no hang, no 5xx but for overload, no fault in the log; after every batch a known prompt
has its exact text, and no stream, request or task is left. FUZZ_REQUESTS is how many in all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from fuzz.batches import batches
from fuzz.fuzzed_server import fuzzed_server
from fuzz.grpc_tensors import STREAM_KEYS, requests
from fuzz.json_bodies import no_json, right_types, wrong_types
from fuzz.judged import Judge


@pytest.fixture(scope="module")
def judge(
    demo_engine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Judge]:
    with fuzzed_server(demo_engine, tmp_path_factory.mktemp("fuzz")) as server:
        judging = Judge(server)
        yield judging
    print("\nfuzz:", dict(judging.kinds))


@batches(right_types(), 0.35)
def test_json_of_the_right_types(judge: Judge, batch: list[Any]) -> None:
    judge.http(batch)


@batches(wrong_types(), 0.1)
def test_json_of_wrong_types(judge: Judge, batch: list[Any]) -> None:
    judge.http(batch)


@batches(no_json(), 0.05)
def test_bodies_that_are_no_json(judge: Judge, batch: list[Any]) -> None:
    judge.http(batch)


@batches(requests("ensemble"), 0.2)
def test_tensors_to_ensemble(judge: Judge, batch: list[Any]) -> None:
    judge.grpc(batch, [])


@batches(requests("preprocessing"), 0.1)
def test_tensors_to_preprocessing(judge: Judge, batch: list[Any]) -> None:
    judge.grpc(batch, [])


@batches(requests("tensorrt_llm"), 0.1)
def test_tensors_to_the_engine(judge: Judge, batch: list[Any]) -> None:
    judge.grpc(batch, [])


@batches(requests("postprocessing"), 0.1)
def test_tensors_to_postprocessing(judge: Judge, batch: list[Any]) -> None:
    judge.grpc(batch, [last_chunk(key) for key in STREAM_KEYS])


def last_chunk(key: int) -> pb.ModelInferRequest:
    """What ends a stream that a fuzzed request began."""
    request = pb.ModelInferRequest(model_name="postprocessing")
    for name, dtype, shape, raw in (
        ("TOKENS_BATCH", "INT32", [1, 1, 0], b""),
        ("STREAM_KEY", "UINT64", [1, 1], key.to_bytes(8, "little")),
        ("STREAM_END", "BOOL", [1, 1], b"\1"),
    ):
        request.inputs.add(name=name, datatype=dtype, shape=shape)
        request.raw_input_contents.append(raw)
    return request
