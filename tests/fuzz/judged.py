"""Sending one fuzzed request, and what its answer must be: right, or an error that is its own."""

import json
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import grpc
import httpx
from tritonclient.grpc import service_pb2_grpc as rpc

from fuzz.fuzzed_server import OWN_FAULTS, FuzzedServer
from fuzz.json_bodies import encoded

CLIENTS = 8
SECONDS = 90  # longer is a hang
# Triton's own HTTP gateway end (24.10) answers these with 500, before any model sees the request.
TRITONS_OWN_500 = re.compile(
    r"Unable to parse 'data': attempt to access JSON non-[a-z-]+ as [a-z-]+"
    r"|Unable to parse 'data': Shape does not match true shape of 'data' field"
    r"|Unable to parse JSON bytes array: attempt to access JSON non-string as string"
    r"|Unable to parse 'id': attempt to access JSON non-string as string"
    r"|Expected JSON object for keyword: 'parameters': attempt to access JSON non-object as object"
    r"|attempt to get members for non-object"
    r"|failed to parse the request JSON buffer: .*"
    r"|(Converting keyword: 'parameters': )?parameter key '.*' was not found in the JSON",
    re.DOTALL,
)
ONE_RESPONSE = "generate expects model to produce exactly 1 response"


class Judge:
    """Sends batches to one server; counts what came back by kind."""

    def __init__(self, server: FuzzedServer) -> None:
        self.server = server
        self.kinds: Counter[str] = Counter()

    def http(self, batch: list[Any]) -> None:
        """Bodies (bytes, or what becomes JSON) to /generate and /generate_stream."""
        bodies = [body if isinstance(body, bytes) else encoded(body) for body in batch]
        self.server.ensure()
        with httpx.Client(base_url=self.server.url, timeout=SECONDS) as client:
            send_all(self.server, bodies, lambda body: self._post(client, body))
        self.server.check(bodies)

    def grpc(self, batch: list[Any], after: list[Any]) -> None:
        """ModelInferRequests, at once, then those of `after`."""
        self.server.ensure()
        with grpc.insecure_channel(self.server.grpc) as channel:
            stub = rpc.GRPCInferenceServiceStub(channel)
            send_all(self.server, batch, lambda request: self._infer(stub, request))
            for request in after:
                self._infer(stub, request)
        self.server.check(batch)

    def _post(self, client: httpx.Client, body: bytes) -> None:
        streams = b'"stream": true' in body
        path = "/v2/models/ensemble/generate" + ("_stream" if streams else "")
        response = client.post(path, content=body)
        status = response.status_code
        if status == 200 and streams:
            for event in _events(response.content):
                assert event.get("error") != ""
                self._judge_error(event.get("error"))
        elif status == 200:
            answer = response.json()
            several = not self.server.has_gateway and ONE_RESPONSE in answer.get("error", "")
            assert "text_output" in answer or several, answer
            self.kinds["answered"] += 1
        else:
            # Triton's own messages quote what was sent, cut as it may be.
            (error,) = _events(response.content, "replace")
            self._judge_refusal(status, error["error"])

    def _judge_refusal(self, status: int, message: str) -> None:
        assert message
        if status == 503:
            self.kinds["overload"] += 1
        elif status == 500 and not self.server.has_gateway and TRITONS_OWN_500.fullmatch(message):
            self.kinds["500 of Triton's own front end"] += 1
        else:
            assert 400 <= status < 500, (status, message)
            self._judge_error(message)

    def _judge_error(self, message: str | None) -> None:
        if not message:
            self.kinds["answered"] += 1
            return
        assert not any(fault in message for fault in OWN_FAULTS), message
        self.kinds["refused"] += 1

    def _infer(self, stub: Any, request: Any) -> None:
        try:
            if request.model_name in ("ensemble", "tensorrt_llm"):
                # Without the header `triton_grpc_error`: Triton 24.10 dies of refusals to those.
                answers = list(stub.ModelStreamInfer(iter([request]), timeout=SECONDS))
                stops = request.id and any(item.name == "stop" for item in request.inputs)
                assert answers or stops  # a request to stop another, by its id, is not answered
                self._judge_error(answers[-1].error_message if answers else None)
            else:
                stub.ModelInfer(request, timeout=SECONDS)
                self.kinds["answered"] += 1
        except grpc.RpcError as error:
            message = f"{error.code().name}: {error.details()}"
            if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
                raise AssertionError(message) from error
            self._judge_error(message)


def send_all(
    server: FuzzedServer, batch: list[Any], send: Callable[[Any], None], clients: int = CLIENTS
) -> None:
    """Send a batch, so many at once; fails with all that `send` raised and what it was sent."""
    with ThreadPoolExecutor(clients) as pool:
        sent = {pool.submit(send, item): item for item in batch}
        wait(sent)
    problems = [
        f"{future.exception()!r}\n  sent {item!r}"
        for future, item in sent.items()
        if future.exception()
    ]
    if problems:
        server.check(batch)  # if it died, that is the news
    assert not problems, "\n".join(problems)


def _events(content: bytes, errors: str = "strict") -> list[dict[str, Any]]:
    """The events of a stream, or the one error; every one is whole, and JSON."""
    events = [event for event in content.split(b"\n\n") if event]
    return [json.loads(event.removeprefix(b"data: ").decode(errors=errors)) for event in events]
