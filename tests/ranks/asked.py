# SPDX-License-Identifier: Apache-2.0
"""Greedy answers of the ensemble, one after another and eight at a time."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

ENSEMBLE = "/v2/models/ensemble"
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
    "안녕하세요 세계",
    "In 1969, two men",
    "The recipe for good bread needs",
    "Water boils at",
    "She opened the letter and",
    "1, 2, 3, 5, 8,",
    "SELECT name FROM",
    "Le chat est sur",
    "Der Zug fährt",
    "日本の首都は",
    "Столица России",
    "The three laws of",
    "<html><body>",
    "A good engineer",
    "To whom it may concern:",
    "😀 means",
    "E = mc",
]


def ask(http: httpx.Client, prompt: str, **parameters: Any) -> str:
    """text_output of /generate; fails the test if it is an error."""
    body = {"text_input": prompt, "parameters": {"max_tokens": 12} | parameters}
    response = http.post(f"{ENSEMBLE}/generate", json=body)
    assert response.status_code == 200, response.text
    text: str = response.json()["text_output"]
    return text


def ask_all(http: httpx.Client, at_a_time: int) -> list[str]:
    """The greedy answers to all prompts, so many in flight."""
    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(lambda prompt: ask(http, prompt), PROMPTS))


def chunks(http: httpx.Client, prompt: str, **parameters: Any) -> list[str]:
    """The chunks of /generate_stream."""
    body = {"text_input": prompt, "stream": True, "parameters": {"max_tokens": 12} | parameters}
    with http.stream("POST", f"{ENSEMBLE}/generate_stream", json=body) as response:
        assert response.status_code == 200
        events = [json.loads(line[5:]) for line in response.iter_lines() if line[:5] == "data:"]
    assert not [event for event in events if "error" in event]
    return [event["text_output"] for event in events]


if __name__ == "__main__":  # where only a process of another network can ask
    with httpx.Client(base_url=sys.argv[1], timeout=120) as client:
        print(json.dumps([ask_all(client, 1), ask_all(client, 8)]))
