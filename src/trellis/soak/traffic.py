# SPDX-License-Identifier: Apache-2.0
"""Clients of every kind, one request after another: each knows what it must get back."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from trellis.errors import TrellisError
from trellis.grpc_client import generate, texts
from trellis.soak.access import NO_ACCESS, Access
from trellis.soak.prompts import Right, prompt

ENSEMBLE = "/v2/models/ensemble"
HANG_SECONDS = 120
LONG_TOKENS = 400  # of requests that are cancelled
GRPC_CANCEL = "grpc cancel"
RIGHT, WRONG, HUNG, FAILED = "right", "wrong text", "hung", "failed"
# What is refused, and the field that the refusal must name.
BAD: list[tuple[str, dict[str, Any]]] = [
    ("text_input", {"text_input": ""}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": 10**6}),
    ("top_p", {"top_p": 7}),
    ("temperature", {"temperature": -1}),
    ("repetition_penalty", {"repetition_penalty": 0}),
    ("end_id", {"end_id": 2**31 - 1}),
    ("stop_token_ids", {"stop_token_ids": [-1]}),
    ("min_tokens", {"min_tokens": 10**5}),
    ("text_input", {"text_input": "x" * 200_000}),
]


@dataclass
class Tally:
    """What came back, by kind of request and outcome; and the first few that were wrong."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, outcome: str, detail: str = "") -> None:
        """Count one request."""
        with self.lock:
            self.counts[kind, outcome] += 1
            if outcome != RIGHT:
                self.errors[f"{kind}: {outcome}: {detail[:100]}"] += 1
                if len(self.examples) < 5:
                    self.examples.append(f"{kind}: {outcome}: {detail}")

    @property
    def cancelled(self) -> int:
        """Streams that were cancelled over gRPC."""
        return sum(count for (kind, _), count in self.counts.items() if kind == GRPC_CANCEL)

    @property
    def faults(self) -> int:
        """Requests that did not end as they had to."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome != RIGHT)


class Unexpected(TrellisError):
    """An answer that is not the one; the message says how."""


class Traffic:
    """Many clients on threads of their own, until told to stop."""

    def __init__(
        self,
        url: str,
        grpc: str,
        right: dict[str, Right],
        clients: int,
        seed: int,
        access: Access = NO_ACCESS,
    ) -> None:
        self.tally = Tally()
        self._url, self._grpc, self._right, self._access = url, grpc, right, access
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(random.Random(seed * 1000 + number),))
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def stop(self) -> int:
        """Let every client finish its request; how many do not, though they had time."""
        self._stop.set()
        end = time.monotonic() + HANG_SECONDS + 30
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))
        return sum(thread.is_alive() for thread in self._threads)

    def _client(self, chance: random.Random) -> None:
        with (
            self._access.http(self._url, HANG_SECONDS) as http,
            self._access.grpc(self._grpc) as grpc,
        ):
            client = Client(http, grpc, self._right, chance)
            kinds, weights = zip(*KINDS, strict=True)
            while not self._stop.is_set():
                kind = chance.choices(kinds, weights)[0]
                self._one(client, kind)

    def _one(self, client: "Client", kind: Callable[["Client"], None]) -> None:
        name = kind.__name__.replace("_", " ")
        try:
            kind(client)
            self.tally.note(name, RIGHT)
        except Unexpected as error:
            self.tally.note(name, WRONG, str(error))
        except (httpx.TimeoutException, TimeoutError) as error:
            self.tally.note(name, HUNG, repr(error))
        except Exception as error:
            self.tally.note(name, FAILED, repr(error))
            self._stop.wait(0.2)  # a server that is gone is not asked a million times


class Client:
    """One client's ways to ask. Each raises Unexpected for an answer that is not right."""

    def __init__(
        self,
        http: httpx.Client,
        grpc: triton.InferenceServerClient,
        right: dict[str, Right],
        chance: random.Random,
    ) -> None:
        self.http, self.grpc, self.right, self.chance = http, grpc, right, chance

    def http_whole(self) -> None:
        """/generate."""
        script = self._script()
        response = self.http.post(f"{ENSEMBLE}/generate", json=self._body(script))
        if response.status_code != 200:
            raise Unexpected(f"{response.status_code}: {response.text}")
        self._check(script, response.json()["text_output"])

    def http_stream(self) -> None:
        """/generate_stream, to its end."""
        script = self._script()
        self._check(script, "".join(self._events(self._body(script, stream=True))))

    def http_hang_up(self) -> None:
        """/generate_stream, left after its first chunks."""
        body = self._body(self._script(), stream=True, max_tokens=LONG_TOKENS)
        events = self._events(body)
        for _ in range(self.chance.randint(1, 5)):
            next(events)
        events.close()

    def grpc_whole(self) -> None:
        """One response over gRPC."""
        self._check_grpc(stream=False)

    def grpc_stream(self) -> None:
        """A stream over gRPC."""
        self._check_grpc(stream=True)

    def grpc_cancel(self) -> None:
        """A stream over gRPC, cancelled after its first chunks."""
        script = self._script()
        values = self._values(script, stream=True, max_tokens=LONG_TOKENS)
        parts = generate(self.grpc, [prompt(script).encode()], values, timeout=HANG_SECONDS)
        for _ in range(self.chance.randint(1, 5)):
            next(parts)
        parts.close()  # type: ignore[attr-defined]

    def bad_request(self) -> None:
        """Refused, and the refusal names the field."""
        named, change = self.chance.choice(BAD)
        body = {"text_input": "Hello", "max_tokens": 4} | change
        response = self.http.post(f"{ENSEMBLE}/generate", json=body)
        if not 400 <= response.status_code < 500 or f"{named}: " not in response.text:
            raise Unexpected(f"{response.status_code}, {named}: {response.text}")

    def bad_tensors(self) -> None:
        """The same over gRPC."""
        named, change = self.chance.choice(BAD)
        values = {"max_tokens": 4} | change
        text = str(values.pop("text_input", "Hello"))
        try:
            list(generate(self.grpc, [text.encode()], values, timeout=HANG_SECONDS))
        except InferenceServerException as error:
            if f"{named}: " not in error.message():
                raise Unexpected(f"{named}: {error.message()}") from error
            return
        raise Unexpected(f"{named} was not refused")

    def _script(self) -> str:
        return self.chance.choice(list(self.right))

    def _values(self, script: str, **more: Any) -> dict[str, Any]:
        return {"max_tokens": self.right[script].tokens, "end_id": -1} | more

    def _body(self, script: str, **more: Any) -> dict[str, Any]:
        return {"text_input": prompt(script)} | self._values(script, **more)

    def _events(self, body: dict[str, Any]) -> Any:
        with self.http.stream("POST", f"{ENSEMBLE}/generate_stream", json=body) as response:
            for line in response.iter_lines():
                if not line.startswith("data: "):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise Unexpected(f"{response.status_code}: {event['error']}")
                yield event["text_output"]

    def _check_grpc(self, stream: bool) -> None:
        script = self._script()
        asked = [prompt(script).encode()], self._values(script, stream=stream)
        found = "".join(texts(generate(self.grpc, *asked, timeout=HANG_SECONDS)))
        self._check(script, found)

    def _check(self, script: str, found: str) -> None:
        if found != self.right[script].text:
            raise Unexpected(f"{script}: {found!r} is not {self.right[script].text!r}")


KINDS: list[tuple[Callable[[Client], None], int]] = [
    (Client.http_whole, 20),
    (Client.http_stream, 25),
    (Client.grpc_whole, 12),
    (Client.grpc_stream, 20),
    (Client.http_hang_up, 8),
    (Client.grpc_cancel, 6),
    (Client.bad_request, 6),
    (Client.bad_tensors, 3),
]
