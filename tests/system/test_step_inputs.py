# SPDX-License-Identifier: Apache-2.0
"""The step socket's own inputs, asked of a real server's model as the gateway asks it."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trellis.ipc.frames import Frames, frame, step_address
from trellis.server.process import Server
from trellis.tokenizers import load

PROMPT = "The capital of France is"


class Client:
    """The gateway's end, one request at a time."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(step_address("tensorrt_llm", server.process.pid))
        self._frames = Frames()
        self._number = 0

    def ask(self, **body: Any) -> list[list[Any]]:
        """The events of one request."""
        self._number += 1
        self._socket.sendall(frame("ask", self._number, body))
        events: list[list[Any]] = []
        while not (events and (len(events[-1]) == 3 or events[-1][2:3] == [True])):
            for message in self._frames.feed(self._socket.recv(65536)):
                if message[0] == "events":
                    events += message[1]
        if len(events[-1]) > 3:
            assert events[-1][4].pop("summary")
        return events

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    made = Client(server)
    yield made
    made.close()


@pytest.fixture(scope="module")
def tensors(demo_engine: tuple[Path, Path]) -> dict[str, Any]:
    ids = load("gpt2", demo_engine[1]).encode(PROMPT)
    return {
        "input_ids": ids,
        "input_lengths": len(ids),
        "request_output_len": 5,
        "end_id": -1,
        "streaming": True,
    }


def joined(events: list[list[Any]]) -> dict[str, list[Any]]:
    """Lists of all events, one after another."""
    made: dict[str, list[Any]] = {"ids": []}
    for event in events:
        made["ids"] += event[1]
        for name, value in event[4].items() if len(event) == 5 else ():
            if isinstance(value, list):
                made[name] = made.get(name, []) + value
    return made


def test_the_likeliest_and_the_prompt_s_come_as_they_were_asked(
    client: Client, tensors: dict[str, Any]
) -> None:
    plain = client.ask(**tensors)
    assert all(len(event) == 2 or event[4] == {} for event in plain)
    likeliest = joined(client.ask(**tensors, top_log_probs=1))
    assert likeliest["ids"] == joined(plain)["ids"]
    assert len(likeliest["top_log_probs"]) == 5
    assert [pair[0] for (pair,) in likeliest["top_log_probs"]] == likeliest["ids"]
    prompt = client.ask(**tensors, prompt_log_probs=True, return_cached_tokens=True)
    assert joined(prompt)["ids"] == joined(plain)["ids"]
    assert [len(event) == 5 and "prompt_log_probs" in event[4] for event in prompt] == [True] + [
        False
    ] * (len(prompt) - 1)
    told = joined(prompt)["prompt_log_probs"]
    assert len(told) == tensors["input_lengths"]
    assert told[0] is None
    assert all(value < 0 and top == [] for value, top in told[1:])
    whole = client.ask(**tensors | {"streaming": False}, prompt_log_probs=True)
    assert joined(whole)["prompt_log_probs"] == told
    assert joined(whole)["ids"] == joined(plain)["ids"]


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"top_log_probs": 2}, "top_log_probs"),
        ({"top_log_probs": 21}, "top_log_probs"),
        ({"priority": 1}, "priority"),
        ({"bias_ids": [1], "bias_weights": [1.0]}, "embedding_bias_words"),
        ({"bias_ids": [1]}, "bias_weights"),
        ({"prompt_log_probs": "yes"}, "prompt_log_probs"),
    ],
)
def test_what_the_engine_lacks_and_bad_values_are_rejected_by_name(
    client: Client, tensors: dict[str, Any], asked: dict[str, Any], name: str
) -> None:
    ((_, message, code),) = client.ask(**tensors, **asked)
    assert message.startswith(f"{name}: "), message
    assert code == "INVALID_ARG"
