"""gRPC with keys: the gateway asks a Python engine by its step socket; all is as Triton has it."""

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelStreamInferResponse
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from support.asking import chat
from support.key_files import KeyFile
from support.serving import serve
from support.waiting import wait_for
from trellis.grpc_client import generate, request_inputs
from trellis.server.access_settings import AccessSettings
from trellis.server.process import Server

PROMPT = chat("Say hello in Korean and name three emoji.").encode()
ALL = {
    "return_log_probs": True,
    "return_num_input_tokens": True,
    "return_num_output_tokens": True,
    "return_finish_reason": True,
}
LONG = {"max_tokens": 6000, "end_id": -1, "stream": True}
FINAL = "triton_final_response"
JOINED = ("output_log_probs", "num_output_tokens")
# What can be asked by the step socket, and what is Triton's.
SHORT: dict[str, dict[str, Any]] = {
    "plain": {},
    "all that can be asked": ALL,
    "one token": {"return_log_probs": True, "max_tokens": 1},
    "stop words": {"stop_words": ["!", "help"], "return_finish_reason": True},
    "bad words": {"bad_words": ["Sure"]},
    "a seed": {"temperature": 1.5, "top_p": 0.9, "random_seed": 7},
    "special tokens kept": {"skip_special_tokens": False, "max_tokens": 60},
    "the prompt too": {"exclude_input_in_output": False},
    "a guide": {
        "guided_decoding_guide_type": "regex",
        "guided_decoding_guide": "[a-f]{2,9}",
    },
    "more than the context": {"max_tokens": 8192},
    "a penalty that the engine rejects": {"length_penalty": 2.0},
}
TRITON: dict[str, dict[str, Any]] = {
    "two sequences": {"num_return_sequences": 2, "temperature": 0.7, "random_seed": 3},
    "beams": {"beam_width": 2},
    "no tokens": {"max_tokens": 0},
    "a stop id outside": {"stop_token_ids": [999_999_999]},
}
Responses = list[ModelStreamInferResponse]


@pytest.fixture(scope="module")
def keyed(
    demo_repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A server before whose gRPC port the gateway stands, and a key."""
    folder = tmp_path_factory.mktemp("keyed")
    file = KeyFile(folder / "keys.yaml")
    key = file.add("alice")
    access = AccessSettings(api_keys=str(file.path))
    with serve(demo_repo, folder, access=access) as server:
        yield server, key


def request(values: dict[str, Any], request_id: str = "", prompt: bytes = PROMPT) -> Any:
    """As tritonclient writes it."""
    made = ModelInferRequest(model_name="ensemble", id=request_id)
    for tensor in request_inputs([prompt], values):
        made.inputs.append(tensor._get_tensor())
        made.raw_input_contents.append(tensor._get_content())
    return made


def ask(server: Server, key: str, *requests: ModelInferRequest) -> Responses:
    """All answers of one stream."""
    headers = (("x-api-key", key),) if key else ()
    with grpc.insecure_channel(f"127.0.0.1:{server.settings.grpc_port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        return list(stub.ModelStreamInfer(iter(requests), metadata=headers, timeout=120))


def joined(responses: Responses) -> dict[str, Any]:
    """What all of them have together: how chunks fall is up to the moment."""
    found: dict[str, Any] = {"errors": [each.error_message for each in responses]}
    finals = [each.infer_response.parameters[FINAL].bool_param for each in responses]
    assert finals == [False] * (len(finals) - 1) + [True]
    for each in responses:
        answer = each.infer_response
        parts = (answer.model_name, answer.model_version, answer.id)
        found.setdefault("named", parts)
        assert found["named"] == parts
        found["parameters"] = {
            name: str(value) for name, value in answer.parameters.items() if name != FINAL
        }
        for tensor, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
            value = triton.InferResult(answer).as_numpy(tensor.name)
            kind = (tensor.datatype, len(tensor.shape))
            made = value.tolist() if tensor.datatype != "BYTES" else [bytes(value.flat[0])]
            assert found.setdefault(f"{tensor.name} is", kind) == kind
            before = found.get(tensor.name)
            if tensor.name == "text_output":
                made = (before or b"") + data[4:]
            elif tensor.name in JOINED and before is not None:
                made = [[before[0][0] + made[0][0]]]
            found[tensor.name] = made
    return found


def short_requests(server: Server) -> float:
    """How many went by the step socket, by the metrics page."""
    page = httpx.get(f"http://127.0.0.1:{server.settings.metrics_port}/metrics").text
    lines = [line for line in page.splitlines() if 'endpoint="/ModelStreamInfer"' in line]
    return sum(float(line.split()[-1]) for line in lines if "requests_total" in line)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", [*SHORT, *TRITON])
def test_each_kind_of_request_is_answered_alike(
    server: Server, keyed: tuple[Server, str], name: str, stream: bool
) -> None:
    asked = request({"max_tokens": 16, "stream": stream, **{**SHORT, **TRITON}[name]}, "mine 7")
    before = short_requests(keyed[0])
    triton_s, ours = ask(server, "", asked), ask(*keyed, asked)
    assert joined(ours) == joined(triton_s)
    wait_for(lambda: short_requests(keyed[0]) == before + (name in SHORT))


def test_outputs_that_are_named_come_alone(server: Server, keyed: tuple[Server, str]) -> None:
    asked = request({"max_tokens": 4, **ALL})
    for name in ("text_output", "num_output_tokens"):
        asked.outputs.add(name=name)
    found = joined(ask(*keyed, asked))
    assert found == joined(ask(server, "", asked))
    assert "cum_log_probs" not in found


def test_requests_of_one_stream_are_each_answered_under_their_ids(
    keyed: tuple[Server, str],
) -> None:
    """By both ways at once: what is for one version is Triton's."""
    requests = [request({"max_tokens": 8, "stream": True}, str(number)) for number in range(9)]
    for each in requests[::3]:
        each.model_version = "1"
    texts: dict[str, bytes] = {}
    for each in ask(*keyed, *requests):
        assert each.error_message == ""
        answer = each.infer_response
        data = answer.raw_output_contents[-1]
        texts[answer.id] = texts.get(answer.id, b"") + data[4:]
    assert sorted(texts) == [str(number) for number in range(9)]
    assert len(set(texts.values())) == 1


def in_flight(server: Server) -> float:
    page = httpx.get(f"http://127.0.0.1:{server.settings.metrics_port}/metrics").text
    line = next(
        line for line in page.splitlines() if line.startswith("trellis_requests_in_flight{")
    )
    return float(line.split()[-1])


def test_a_cancelled_stream_leaves_the_engine(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    with grpc.insecure_channel(f"127.0.0.1:{server.settings.grpc_port}") as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(
            iter([request(LONG)]), metadata=(("x-api-key", key),)
        )
        next(call)
        wait_for(lambda: in_flight(server) == 1)
        call.cancel()
        wait_for(lambda: in_flight(server) == 0)


def test_a_request_is_stopped_by_its_id_with_the_same_key(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    sent = queue.SimpleQueue[ModelInferRequest | None]()
    stop = ModelInferRequest(model_name="ensemble", id="long")
    stop.inputs.add(name="stop", datatype="BOOL", shape=[1, 1])
    stop.raw_input_contents.append(b"\1")
    with grpc.insecure_channel(f"127.0.0.1:{server.settings.grpc_port}") as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(
            iter(sent.get, None), metadata=(("x-api-key", key),), timeout=120
        )
        sent.put(request(LONG, "long"))
        next(call)
        wait_for(lambda: in_flight(server) == 1)
        ask(server, key, stop)
        sent.put(None)
        rest = list(call)
    assert {each.infer_response.id for each in rest} == {"long"}
    assert not any(each.error_message for each in rest)
    assert rest[-1].infer_response.parameters[FINAL].bool_param
    wait_for(lambda: in_flight(server) == 0)


def test_who_does_not_read_holds_up_nobody(keyed: tuple[Server, str]) -> None:
    server, key = keyed
    headers = {"x-api-key": key}
    with grpc.insecure_channel(f"127.0.0.1:{server.settings.grpc_port}") as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(
            iter([request({**LONG, "max_tokens": 2000})]), metadata=tuple(headers.items())
        )
        with triton.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}") as client:
            made = list(generate(client, [PROMPT], {"max_tokens": 8}, headers=headers))
        assert made[0]["text_output"].size == 1
        texts = [each.infer_response.raw_output_contents[-1][4:] for each in call]
    assert b"".join(texts).decode()
