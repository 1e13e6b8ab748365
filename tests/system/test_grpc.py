"""gRPC streaming: every answer complete, every answer its own."""

import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import tritonclient.grpc as triton

from support.asking import tensor
from support.engines import ENGINE
from support.waiting import wait_for
from trellis.grpc_client import generate, texts
from trellis.server.process import Server

THINGS = [
    "apple", "river", "stone", "paper", "cloud", "horse", "table", "glass", "bread", "tiger",
    "chair", "green", "light", "house", "plant", "dream", "train", "piano", "lemon", "candle",
    "garden", "winter", "summer", "island", "forest", "desert", "bridge", "castle", "dragon",
    "doctor", "farmer", "flower", "guitar", "hammer", "kitten", "ladder", "market", "needle",
    "pencil", "rabbit", "spider", "ticket", "turtle", "valley", "violin", "window", "zebra",
    "camera", "button", "basket", "carpet", "circle",
]  # fmt: skip
CLIENTS = 64
REQUESTS = int(os.environ.get("REQUESTS", "500"))  # 2,000 in `ci/all --long`
LEAST_WORK = 0.05 if ENGINE == "llmapi" else 0.3  # of a second on a CPU; the fake mostly sleeps


def client_of(server: Server) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}")


def repeated(number: int) -> tuple[str, str]:
    """A prompt whose repetition the model goes on with, and that repetition.

    So strong a pattern says the same in whatever batch it runs, and neighbours say another.
    """
    line = f"I have a {THINGS[number % len(THINGS)]}."
    return f"{line}\n" * 8, line


def test_64_clients_lose_and_mix_up_no_request(server: Server) -> None:
    local = threading.local()

    def one(number: int) -> None:
        if not hasattr(local, "client"):
            local.client = client_of(server)
        prompt, expected = repeated(number)
        values = {
            "max_tokens": 8,
            "end_id": -1,
            "stop_words": ["\n"],
            "stream": number % 2 == 0,
        }
        assert "".join(texts(generate(local.client, [prompt.encode()], values))) == expected

    with ThreadPoolExecutor(CLIENTS) as pool:
        assert sum(1 for _ in pool.map(one, range(REQUESTS))) == REQUESTS


def test_a_batch_streams_every_row_under_its_index(server: Server) -> None:
    prompts, expected = zip(*map(repeated, range(5)), strict=True)
    with client_of(server) as client:
        values = {"max_tokens": 8, "end_id": -1, "stop_words": ["\n"], "stream": True}
        rows = [""] * len(prompts)
        for response in generate(client, [prompt.encode() for prompt in prompts], values):
            rows[response["batch_index"].item()] += response["text_output"].item().decode()
    assert rows == list(expected)


def test_a_full_batch_in_one_request(server: Server) -> None:
    prompts, expected = zip(*map(repeated, range(64)), strict=True)
    with client_of(server) as client:
        values = {"max_tokens": 8, "end_id": -1, "stop_words": ["\n"]}
        (response,) = generate(client, [prompt.encode() for prompt in prompts], values)
    found = [text.decode() for text in np.asarray(response["text_output"]).reshape(-1)]
    assert found == list(expected)


def seconds_of_work(process: psutil.Process, wall: float) -> float:
    """CPU time that a process and those that it started use while `wall` seconds pass."""
    processes = [process, *process.children(recursive=True)]
    before = sum(sum(each.cpu_times()[:2]) for each in processes)
    time.sleep(wall)
    return float(sum(sum(each.cpu_times()[:2]) for each in processes) - before)


def test_a_cancelled_request_to_the_engine_leaves_it(server: Server) -> None:
    """Asked directly: Triton 24.10 does not tell the steps of an ensemble that it was cancelled."""
    (pid,) = (pid for pid, model in server.stubs().items() if model == "tensorrt_llm")
    (engine,) = psutil.Process(pid).children()  # the engine's own process
    inputs = [
        tensor("input_ids", "INT32", np.array([[504, 3575]], np.int32)),
        tensor("input_lengths", "INT32", np.array([[2]], np.int32)),
        tensor("request_output_len", "INT32", np.array([[7000]], np.int32)),
        tensor("stream_key", "UINT64", np.array([[1 << 20]], np.uint64)),
        tensor("streaming", "BOOL", np.array([[True]], np.bool_)),
    ]
    chunks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with client_of(server) as client:
        client.start_stream(lambda result, error: chunks.put(error))
        client.async_stream_infer("tensorrt_llm", inputs)
        assert chunks.get(timeout=20) is None
        busy = seconds_of_work(engine, 1)
        assert busy > LEAST_WORK
        client.stop_stream(cancel_requests=True)
    wait_for(lambda: seconds_of_work(engine, 1) < busy / 3, 10)
