# SPDX-License-Identifier: Apache-2.0
"""An answer of Triton's on its way to a client: one JSON object, or one in each event."""

from trellis.gateway.ids import RequestId
from trellis.gateway.metrics.meter import Meter
from trellis.gateway.refusals import EVENTS, JSON, one_line

EVENT, EVENT_END = b"data: ", b"\n\n"
# Triton answers every error of a model with 400; these are not the client's fault.
STATUSES = {
    b"', the server is overloaded: ": 503,
    b"', the model is unloaded or the server is shutting down": 503,
    b"', the engine failed": 500,
    b"', the engine refused the request: ": 500,
    b"', the answer failed: ": 500,
    b"', the request could not be read: ": 500,
}


class Answer:
    """An answer as it is, under the client's id. `begin`, `feed` as often as needed, `end`."""

    def __init__(self, request_id: RequestId) -> None:
        self.request_id = request_id
        self.meter = Meter()  # of its chunks, where nobody else counts them
        self.status = 0
        self.streams = False
        self.failed = False  # it ends with an error of the gateway's own
        self.refused = False  # it is or ends with an error of the model's
        self.cut = False  # it ends with an error since the server's did not end
        self.success_of: tuple[str, ...] = ()  # the models that it was answered past, once it is
        self._rest = b""  # of a stream: an event that is not complete
        self._parts: list[bytes] = []  # of a whole answer

    @property
    def content_type(self) -> bytes:
        """What the client is told that it gets."""
        return EVENTS if self.streams else JSON

    def begin(self, status: int, content_type: bytes) -> None:
        """The head of Triton's answer has come."""
        self.status = status
        self.streams = content_type.startswith(b"text/event-stream")

    def feed(self, data: bytes) -> bytes:
        """What goes to the client after this piece of the body: of a stream, whole events."""
        if not self.streams:
            self._parts.append(data)
            return b""
        if self._rest:
            data = self._rest + data
        elif 0 < data.find(EVENT_END) == len(data) - len(EVENT_END) and not self.failed:
            return one_line(self._event(data[: -len(EVENT_END)]))  # one event, as most come
        events, end, self._rest = data.rpartition(EVENT_END)
        if not end or self.failed:
            return b""
        return one_line(b"".join(map(self._event, events.split(EVENT_END))))

    def end(self) -> bytes:
        """What goes to the client at the end of the body: of a whole answer, all of it."""
        if self.streams:
            rest, self._rest = self._rest, b""
            return b"" if self.failed else one_line(self.request_id.restored(rest))
        self._count()
        body = self._object(b"".join(self._parts))
        self._parts.clear()
        if self.failed:
            self.status = 400
        return body

    def status_of(self, body: bytes) -> int:
        """What a whole answer, or a stream that is an error alone, has for a status.

        >>> answer = Answer(RequestId("1f"))
        >>> answer.begin(400, b"application/json")
        >>> answer.status_of(b"in ensemble 'e', the server is overloaded: wait")
        503
        """
        if self.status != 400:
            return self.status
        return next((status for words, status in STATUSES.items() if words in body), 400)

    def _event(self, event: bytes) -> bytes:
        if self.failed:  # by one before it: that was the last
            return b""
        if event.startswith(EVENT):
            self._count()
            event = EVENT + self._object(event[len(EVENT) :])
        return event + EVENT_END

    def _count(self) -> None:
        """Note a chunk, before it is read; of tokens nothing is known."""
        self.meter.chunk(0)

    def _object(self, data: bytes) -> bytes:
        """A JSON object of Triton's as the client gets it."""
        return self.request_id.restored(data)
