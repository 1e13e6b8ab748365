"""Why a sequence ended, when asked for: with the last chunk of each, and of no other."""

import httpx

from support.asking import ask, chat
from system.test_grpc import client_of, repeated
from trellis.grpc_client import generate
from trellis.server.process import Server


def test_the_end_of_max_tokens_is_length(http: httpx.Client) -> None:
    answer = ask(http, "Once", max_tokens=3, end_id=-1, return_finish_reason=True)
    assert answer["finish_reason"] == "length"


def test_the_end_token_is_stop(http: httpx.Client) -> None:
    answer = ask(
        http, chat("What is the capital of France?"), max_tokens=200, return_finish_reason=True
    )
    assert answer["finish_reason"] == "stop"


def test_a_stop_string_is_stop_even_with_the_last_token(http: httpx.Client) -> None:
    prompt, line = repeated(0)
    values = {"end_id": -1, "stop_words": ["\n"], "return_finish_reason": True}
    first = ask(http, prompt, max_tokens=30, return_num_output_tokens=True, **values)
    assert first["text_output"] == line
    assert first["finish_reason"] == "stop"
    last = ask(http, prompt, max_tokens=first["num_output_tokens"], **values)
    assert (last["text_output"], last["finish_reason"]) == (line, "stop")


def test_nothing_is_said_where_it_is_not_asked_for(http: httpx.Client) -> None:
    assert "finish_reason" not in ask(http, "Once", max_tokens=3)


def test_a_stream_says_it_once_for_each_row(server: Server) -> None:
    prompts = [repeated(number)[0].encode() for number in range(3)]
    values = {
        "max_tokens": 4,
        "end_id": -1,
        "stop_words": [" a"],
        "stream": True,
        "return_finish_reason": True,
    }
    said: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    chunks = 0
    with client_of(server) as client:
        for response in generate(client, [*prompts[:2], b"1 2 3 4 5 6 7 8"], values):
            chunks += 1
            if "finish_reason" in response:
                said[response["batch_index"].item()].append(response["finish_reason"].item())
    assert said == {0: [b"stop"], 1: [b"stop"], 2: [b"length"]}
    assert chunks > 3


def test_a_batch_has_one_for_each_sequence(server: Server) -> None:
    prompts = [repeated(0)[0].encode(), b"1 2 3 4 5 6 7 8"]
    values = {
        "max_tokens": 4,
        "end_id": -1,
        "stop_words": [" a"],
        "temperature": 0.01,
        "num_return_sequences": 2,
        "return_finish_reason": True,
    }
    with client_of(server) as client:
        (response,) = generate(client, prompts, values)
    assert response["finish_reason"].tolist() == [[b"stop"] * 2, [b"length"] * 2]
