"""Clients that each have a right answer of their own, asked in every way at once."""

import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from trellis.grpc_client import generate, texts

ENSEMBLE = "/v2/models/ensemble"
THINGS = (
    "apple", "river", "stone", "paper", "cloud", "horse", "table", "glass", "bread", "tiger",
    "chair", "light", "house", "plant", "dream", "train",
)  # fmt: skip
WAYS = ("whole", "stream", "grpc")
TOKENS = 24
CLIENT_SECONDS = 60  # longer is a hang


def prompt(thing: str) -> str:
    """So strong a pattern that its continuation is the same in whatever batch it runs."""
    return f"I have a {thing}.\n" * 8


def values(**more: Any) -> dict[str, Any]:
    """The settings of every request: greedy, and always as long."""
    return {"max_tokens": TOKENS, "end_id": -1} | more


@dataclass
class Outcome:
    """How one request ended: its text so far, and whether that was all."""

    thing: str
    way: str
    text: str
    whole: bool
    seconds: float
    error: str = ""


class Load:
    """Requests of every way, one after another on each of many threads, until told to stop."""

    def __init__(self, url: str, grpc_port: int, clients: int) -> None:
        self.url = url
        self.grpc = f"127.0.0.1:{grpc_port}"
        self.started = threading.Event()  # an answer has begun
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._futures: list[Future[list[Outcome]]] = [
            self._pool.submit(self._client, number) for number in range(clients)
        ]

    def stop(self) -> list[Outcome]:
        """What came of all requests. Fails if a client still waits after a hard limit."""
        self._stop.set()
        end = time.monotonic() + CLIENT_SECONDS + 10
        outcomes = []
        for future in self._futures:
            outcomes += future.result(max(end - time.monotonic(), 0.1))
        self._pool.shutdown(wait=False)
        return outcomes

    def _client(self, number: int) -> list[Outcome]:
        outcomes = []
        thing, way = THINGS[number % len(THINGS)], WAYS[number % len(WAYS)]
        while not self._stop.is_set():
            outcomes.append(ask(self.url, self.grpc, thing, way, self.started))
            if outcomes[-1].error:
                break
        return outcomes


def ask(
    url: str, grpc: str, thing: str, way: str, started: threading.Event | None = None
) -> Outcome:
    """One request; errors are its outcome."""
    parts: list[str] = []
    begin = time.monotonic()
    try:
        for part in {"whole": _whole, "stream": _stream, "grpc": _grpc}[way](url, grpc, thing):
            parts.append(part)
            if started is not None:
                started.set()
        error = ""
    except (httpx.HTTPError, InferenceServerException, Refused) as problem:
        error = f"{type(problem).__name__}: {problem}"
    seconds = time.monotonic() - begin
    return Outcome(thing, way, "".join(parts), not error, seconds, error)


class Refused(RuntimeError):
    """An error of the server's, over HTTP."""


def _whole(url: str, grpc: str, thing: str) -> Any:
    body = {"text_input": prompt(thing), "parameters": values()}
    response = httpx.post(f"{url}{ENSEMBLE}/generate", json=body, timeout=CLIENT_SECONDS)
    answer = response.json()
    if response.status_code != 200:
        raise Refused(f"{response.status_code}: {answer['error']}")
    yield answer["text_output"]


def _stream(url: str, grpc: str, thing: str) -> Any:
    body = {"text_input": prompt(thing), "stream": True, "parameters": values()}
    made = 0
    with httpx.stream(
        "POST", f"{url}{ENSEMBLE}/generate_stream", json=body, timeout=CLIENT_SECONDS
    ) as response:
        for line in response.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise Refused(f"{response.status_code}: {event['error']}")
            made += 1
            yield event["text_output"]
    if not made:
        raise Refused("a stream without an event")


def _grpc(url: str, grpc: str, thing: str) -> Any:
    with triton.InferenceServerClient(grpc) as client:
        yield from texts(
            generate(client, [prompt(thing).encode()], values(stream=True), timeout=CLIENT_SECONDS)
        )
