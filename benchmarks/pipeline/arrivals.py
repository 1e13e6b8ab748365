"""What came back, read after the clock stopped: chunks, their times, their texts."""

import bisect
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from jobs import Sent
from tritonclient.grpc import service_pb2

EVENT = re.compile(rb"data: ?(.*?)\n\n", re.DOTALL)
Value = str | list[int]


@dataclass
class Answer:
    """One request's chunks: when each came (seconds of perf_counter), and what was in it."""

    request: int
    sent: float
    times: list[float] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    error: str = ""

    @property
    def joined(self) -> Value:
        """The chunks as one text, or as one list of ids."""
        if self.values and isinstance(self.values[0], list):
            return [token for ids in self.values if isinstance(ids, list) for token in ids]
        return "".join(value for value in self.values if isinstance(value, str))


def read(sent: Sent, protocol: str) -> Answer:
    """The chunks of one request; `error` says what was wrong with it as a whole."""
    answer = Answer(sent.request, sent.sent, error=sent.wrong)
    messages = _http(sent) if protocol == "http" else _grpc(sent)
    try:
        for when, value in messages:
            answer.times.append(when)
            answer.values.append(value)
    except ValueError as error:
        answer.error = answer.error or str(error)
    return answer


def _http(sent: Sent) -> Iterator[tuple[float, Value]]:
    """Events of a stream, or the one body of an unstreamed answer."""
    joined, ends = _joined(sent)
    head = joined.find(b"\r\n\r\n")
    if head < 0:
        return
    if b"event-stream" not in joined[:head]:
        body = joined[head + 4 :]
        chunked = b"transfer-encoding: chunked" in joined[:head].lower()
        yield sent.pieces[-1][0], _json(_dechunked(body) if chunked else body)
        return
    for event in EVENT.finditer(joined, head):
        yield sent.pieces[bisect.bisect_left(ends, event.end())][0], _json(event[1])


def _dechunked(body: bytes) -> bytes:
    """The body of a chunked response: each chunk has its size before it, in hexadecimal."""
    whole, at = b"", 0
    while (size := int(body[at : (line := body.index(b"\r\n", at))], 16)) > 0:
        whole += body[line + 2 : line + 2 + size]
        at = line + 4 + size
    return whole


def _json(body: bytes) -> Value:
    answer = json.loads(body)
    if "error" in answer:
        raise ValueError(answer["error"])
    if "output_ids" in answer:
        ids = answer["output_ids"]
        return ids if isinstance(ids, list) else [ids]
    text: str = answer["text_output"]
    return text


def _grpc(sent: Sent) -> Iterator[tuple[float, Value]]:
    """Messages of a call: a byte of flags, four of length, a ModelStreamInferResponse."""
    joined, ends = _joined(sent)
    at = 0
    while at + 5 <= len(joined):
        end = at + 5 + int.from_bytes(joined[at + 1 : at + 5], "big")
        message = service_pb2.ModelStreamInferResponse.FromString(joined[at + 5 : end])
        if message.error_message:
            raise ValueError(message.error_message)
        value = _tensor(message.infer_response)
        if value is not None:
            yield sent.pieces[bisect.bisect_left(ends, end)][0], value
        at = end


def _tensor(response: service_pb2.ModelInferResponse) -> Value | None:
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.name == "text_output":
            return bytes(raw[4:]).decode()
        if output.name == "output_ids":
            ids = memoryview(raw).cast("i")
            return list(ids)
    return None  # the empty response that only says that no other comes


def _joined(sent: Sent) -> tuple[bytes, Sequence[int]]:
    """All bytes, and where each piece ends in them."""
    ends, total = [], 0
    for _, data in sent.pieces:
        total += len(data)
        ends.append(total)
    return b"".join(data for _, data in sent.pieces), ends
