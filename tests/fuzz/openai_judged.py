"""What an answer of OpenAI's API must be: of the client's types, the same whole and streamed."""

import json
from collections import Counter
from typing import Any

import httpx
import jsonschema
import psutil
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from fuzz.fuzzed_server import FuzzedServer
from fuzz.judged import SECONDS, send_all
from fuzz.openai_bodies import SCHEMA, Asked
from fuzz.openai_faults import Faulty
from support.engines import lacks
from support.openai_api import CHAT, COMPLETIONS, MODEL, RESPONSES, joined, plain, user

WHOLE: dict[str, Any] = {CHAT: ChatCompletion, COMPLETIONS: Completion, RESPONSES: Response}
CHUNK: dict[str, Any] = {
    CHAT: ChatCompletionChunk,
    COMPLETIONS: Completion,
    RESPONSES: ResponseStreamEvent,
}
TYPES = {kind: TypeAdapter(kind) for kind in (*WHOLE.values(), *CHUNK.values())}
GOOD = {"model": MODEL, "messages": user("Count to ten."), "temperature": 0, "max_tokens": 8}
ERROR = {"message", "type", "param", "code"}
# What OpenAI's own answers have, though the client's types do not.
UNTYPED = ("store", "bytes")
# What differs between two answers to one request.
OWN = ("id", "created", "created_at", "item_id", "call_id")

# Sequences that are made at once share steps, and the likelier of two tokens that are as likely may
# be the other one; whatever else differs differs each time.
TRIES = 3


class OtherText(AssertionError):
    """A stream's chunks, joined, are not the whole answer."""


class OpenAIJudge:
    """Sends batches of requests to one server; counts what came back by kind."""

    def __init__(self, server: FuzzedServer) -> None:
        self.server = server
        self.kinds: Counter[str] = Counter()
        self.pids = _pids(server)
        with self._client() as client:
            self.good = self._good(client)

    def valid(self, batch: list[Asked]) -> None:
        """Each whole and streamed, by turns: sequences that are made at once may differ a bit."""
        with self._client() as client:
            send_all(self.server, batch, lambda asked: self._both(client, asked), clients=1)
        self._check(batch)

    def invalid(self, batch: list[Faulty]) -> None:
        """All at once, with a good request among them."""
        with self._client() as client:
            send_all(self.server, [None, *batch], lambda fault: self._faulty(client, fault))
        self._check(batch)

    def _check(self, batch: list[Any]) -> None:
        self.server.check(batch)
        assert _pids(self.server) == self.pids, batch

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url, timeout=SECONDS)

    def _good(self, client: httpx.Client) -> str:
        response = client.post(CHAT, json=GOOD)
        assert response.status_code == 200, response.text
        text: str = response.json()["choices"][0]["message"]["content"]
        return text

    def _both(self, client: httpx.Client, asked: Asked) -> None:
        several = asked.body.get("n", 1) not in (None, 1)
        for left in reversed(range(TRIES if several else 1)):
            try:
                self._once(client, asked, several)
                break
            except OtherText:
                if not left:
                    raise
        self.kinds[asked.path] += 1

    def _once(self, client: httpx.Client, asked: Asked, several: bool) -> None:
        whole = client.post(asked.path, json=asked.body)
        assert whole.status_code == 200, whole.text
        answer = _read(WHOLE[asked.path], whole.content)
        _check_held(asked, answer)
        options: dict[str, Any] = {"stream": True}
        if asked.path != RESPONSES:
            usage = {"include_usage": True, "continuous_usage_stats": len(whole.content) % 2 == 0}
            options |= {"stream_options": usage}
        streamed = client.post(asked.path, json={**asked.body, **options})
        assert streamed.status_code == 200, streamed.text
        events = _events(asked.path, streamed.content)
        if asked.path == RESPONSES:
            _check_response(answer, events)
            return
        pair = [joined(events), plain(answer)]
        streamed_as, whole_as = map(_without_numbers, pair) if several else pair
        if streamed_as != whole_as:
            raise OtherText(pair)

    def _faulty(self, client: httpx.Client, fault: Faulty | None) -> None:
        if fault is None:
            assert self._good(client) == self.good
            self.kinds["good"] += 1
            return
        response = client.request(
            fault.method, fault.path, content=fault.body, headers=fault.headers
        )
        assert 400 <= response.status_code < 500, (response.status_code, response.text)
        assert response.status_code != 422
        assert response.headers["content-type"] == "application/json"
        found = json.loads(response.content)
        assert found.keys() == {"error"}, found
        error = found["error"]
        assert error.keys() == ERROR, error
        assert error["message"], error
        assert error["type"].endswith("_error"), error
        assert response.status_code == fault.status, (response.status_code, error)
        if fault.param is not None:
            assert (error["param"] or "").startswith(fault.param), error
            assert error["message"].startswith(f"{error['param']}: "), error
        self.kinds[f"{fault.kind}: {response.status_code}"] += 1


def _check_held(asked: Asked, answer: dict[str, Any]) -> None:
    """What an answer is held to holds, unless the answer was cut off."""
    if lacks("model that follows guides"):
        return
    if asked.path == RESPONSES:
        return  # the constraints are those of chats
    if asked.body.get("echo"):
        return
    form = asked.body.get("response_format") or {}
    for choice in answer["choices"]:
        if choice["finish_reason"] == "length":
            continue
        message = choice.get("message", {"content": choice.get("text")})
        if form.get("type") == "json_object":
            assert isinstance(json.loads(message["content"]), dict)
        elif form.get("type") == "json_schema":
            jsonschema.validate(json.loads(message["content"]), SCHEMA)
        if asked.body.get("tool_choice") not in (None, "auto", "none"):
            assert choice["finish_reason"] == "tool_calls"
            for call in message["tool_calls"]:
                schema = SCHEMA if call["function"]["name"] == "weather" else {"type": "object"}
                jsonschema.validate(json.loads(call["function"]["arguments"]), schema)


def _pids(server: FuzzedServer) -> set[int]:
    """Of a server's processes; the gateway's parse and template processes come with need."""
    running = server.running.server
    assert running.gateway is not None
    triton = psutil.Process(running.process.pid)
    return {running.gateway.pid, triton.pid, *(each.pid for each in triton.children())}


def _read(kind: Any, data: bytes) -> dict[str, Any]:
    """JSON, which has no NaN, of that type strictly, with no member that the type lacks."""
    found: dict[str, Any] = json.loads(data, parse_constant=_no_number)
    if kind is Completion and any(each["finish_reason"] is None for each in found["choices"]):
        # The client's type has no null here, which OpenAI's own chunks have.
        whole = [{**each, "finish_reason": "stop"} for each in found["choices"]]
        data = json.dumps({**found, "choices": whole}).encode()
    made = TYPES[kind].validate_json(data, strict=True)
    unknown = [name for name in _unknown(made) if name not in UNTYPED]
    assert not unknown, (unknown, data)
    return found


def _no_number(name: str) -> float:
    raise AssertionError(f"{name} is no number of JSON")


def _unknown(value: Any) -> list[str]:
    """Members that the client's types do not have."""
    if isinstance(value, BaseModel):
        found = list(value.model_extra or ())
        return found + [name for _, each in value for name in _unknown(each)]
    if isinstance(value, list):
        return [name for each in value for name in _unknown(each)]
    return []


def _events(path: str, content: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each one line of data for readers of any kind."""
    parts = content.decode().split("\n\n")
    assert parts.pop() == ""
    made = []
    for part in parts:
        lines = part.splitlines()
        if path == RESPONSES:
            name, data = lines
            kind = name.removeprefix("event: ")
            made.append(_read(CHUNK[path], data.removeprefix("data: ").encode()))
            assert made[-1]["type"] == kind
        else:
            (data,) = lines
            if data != "data: [DONE]":
                made.append(_read(CHUNK[path], data.removeprefix("data: ").encode()))
    assert path == RESPONSES or parts[-1] == "data: [DONE]"
    return made


def _check_response(answer: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """The last event has the whole answer, and deltas add up to its text."""
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    grown: dict[int, str] = {}
    for each in events:
        if each["type"].endswith(".delta"):
            assert each["delta"] or each["logprobs"]
            place = each["output_index"]
            grown[place] = grown.get(place, "") + each["delta"]
    for place, item in enumerate(answer["output"]):
        text = item["content"][0]["text"] if "content" in item else item["arguments"]
        assert grown.get(place, "") == text
    assert _common(events[-1]["response"]) == _common(answer)


def _without_numbers(value: Any) -> Any:
    """Without log probabilities of sequences that are made at once.

    By when one of them begins it finds the prompt in the engine's cache, which is less exact than
    what is computed, or not: OpenVINO's differ by up to 0.3.
    """
    if isinstance(value, dict):
        return {
            name: _without_numbers(each)
            for name, each in value.items()
            if name not in ("logprob", "top_logprobs", "token_logprobs")
        }
    return [_without_numbers(each) for each in value] if isinstance(value, list) else value


def _common(value: Any) -> Any:
    """Without what differs between two answers to one request."""
    if isinstance(value, dict):
        return {name: _common(each) for name, each in value.items() if name not in OWN}
    return [_common(each) for each in value] if isinstance(value, list) else value
