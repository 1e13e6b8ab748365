"""The short way: the gateway asks a Python engine by its step socket; all is as by Triton.

Two gateways stand before one server: one asks by the step socket, one by Triton's HTTP port.
"""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.asking import chat
from support.gateway_process import gateway
from support.serving import serve_demo
from trellis.server.process import Server

GREEDY = {"max_tokens": 24, "text_input": chat("Say hello in Korean and name three emoji.")}
# Every kind of request that the gateway answers past the ensemble, and those that it does not.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "log probabilities": {"return_log_probs": True},
    "one token with log probabilities": {"return_log_probs": True, "max_tokens": 1},
    "counts": {"return_num_input_tokens": True, "return_num_output_tokens": True},
    "finish reason": {"return_finish_reason": True},
    "all that can be asked": {
        "return_log_probs": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "return_finish_reason": True,
        "id": 'mine "7"',
    },
    "an id": {"id": "안녕"},
    "stop words": {"stop_words": ["!", "help"], "return_finish_reason": True},
    "a stop word inside a token": {"stop_words": ["el"]},
    "bad words": {"bad_words": ["Hello"]},
    "a seed": {"temperature": 1.5, "top_p": 0.9, "random_seed": 7},
    "special tokens kept": {"skip_special_tokens": False},
    "special tokens left out": {"skip_special_tokens": True},
    "min_tokens": {"min_tokens": 20},
    "the prompt too": {"exclude_input_in_output": False},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5},
    "one string in a list": {"text_input": ["Hi"]},
    # Not by the step socket.
    "two sequences": {"num_return_sequences": 2, "temperature": 0.7, "random_seed": 3},
    "beams": {"beam_width": 2},
    "a long prompt": {"text_input": "word " * 400},
    # Refused, by whoever checks it.
    "no text": {"text_input": ""},
    "a type": {"max_tokens": "x"},
    "too many tokens": {"max_tokens": 1_000_000},
    "an end_id outside": {"end_id": 1_000_000},
    "a stop id outside": {"stop_token_ids": [999_999_999]},
    "no tokens": {"max_tokens": 0},
    "a temperature": {"temperature": -1.0},
    "what the engine lacks": {"min_p": 0.1},
    "an input that nobody has": {"no_such_input": 1},
    "many stop words": {"stop_words": ["x"] * 10_000},
}


@pytest.fixture(scope="module")
def ways(server: Server) -> Iterator[dict[str, httpx.Client]]:
    """A client of each gateway."""
    assert server.gateway is not None
    made = {}
    for name in ("short", "triton"):
        made[name] = (server, name == "short")
    behind = _port_behind(server)
    repo = str(server.settings.model_repo.resolve())
    with (
        gateway(behind, server.process.pid, model_repo=repo) as short,
        gateway(behind, server.process.pid, model_repo=repo, short_way=False) as triton,
        httpx.Client(base_url=f"http://127.0.0.1:{short.port}", timeout=120) as one,
        httpx.Client(base_url=f"http://127.0.0.1:{triton.port}", timeout=120) as other,
    ):
        yield {"short": one, "triton": other}


def _port_behind(server: Server) -> int:
    arguments = server.process.args
    assert isinstance(arguments, list)
    (port,) = [a for a in arguments if str(a).startswith("--http-port=")]
    return int(str(port).partition("=")[2])


def test_explore(ways):
    for name, more in KINDS.items():
        for verb in ("generate", "generate_stream"):
            for stream in (False, True):
                body = GREEDY | more | {"stream": stream}
                got = {w: c.post(f"/v2/models/ensemble/{verb}", json=body) for w, c in ways.items()}
                a, b = got["short"], got["triton"]
                same = (a.status_code, a.content) == (b.status_code, b.content)
                if not same:
                    print("DIFF", name, verb, stream, a.status_code, b.status_code)
                    print("   ", a.content[:700]); print("   ", b.content[:700])
                else: print("same", name, verb, stream, a.status_code, a.content[:100])
