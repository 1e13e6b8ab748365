# SPDX-License-Identifier: Apache-2.0
"""What an engine says of one sequence, as events of the step socket, by whichever way it came.

    [number, ids]   [number, ids, ended, cut, outputs]   [number, message, code]

See ipc/frames.py. By Triton's HTTP port the same is read from its JSON.
"""

import json
import logging
from typing import TYPE_CHECKING, Any, Protocol

from trellis.gateway.answers import EVENT, EVENT_END, Answer
from trellis.gateway.ids import RequestId
from trellis.gateway.metrics.meter import Meter
from trellis.pipeline.decode import Detokenizer, failure
from trellis.pipeline.stop_strings import StopMatcher
from trellis.pipeline.told import reason

if TYPE_CHECKING:
    from trellis.ipc.stream_announcements import CountedPrompt

log = logging.getLogger("trellis.gateway")
Event = list[Any]
# Status of a whole answer of Triton's -> a name of its error codes.
CODES = {400: "INVALID_ARG", 503: "UNAVAILABLE"}
FAILED = "INTERNAL"


class EventReader(Protocol):
    """Makes events of the pieces of an engine's answer."""

    stopped: bool  # at a stop string: the answer is over, though the engine may go on

    def begin(self, status: int, content_type: bytes) -> None:
        """The head of the answer has come."""

    def read(self, piece: Any) -> list[Event]:
        """The events that a piece completes."""

    def end(self) -> list[Event]:
        """Those that are left when no piece comes any more."""


class StepEvents:
    """By the step socket: a piece is an event."""

    stopped = False  # the engine's process ends answers itself

    def begin(self, status: int, content_type: bytes) -> None:
        """Nothing depends on it."""

    def read(self, piece: Any) -> list[Event]:
        """The event itself."""
        return [piece]

    def end(self) -> list[Event]:
        """None: the last event says that it is the last."""
        return []


class TritonEvents:
    """By Triton's HTTP port: pieces of JSON, or of a stream of events that are JSON each."""

    def __init__(
        self,
        ensemble: str,
        texts: Detokenizer,
        inner_id: str,
        counted: "CountedPrompt | None",
        meter: Meter | None = None,
        matcher: StopMatcher | None = None,
    ) -> None:
        """`counted`: of the prompt, where the engine does not say why an answer ended.

        `matcher`: ends the answer at a stop string where the engine does not.
        """
        self.stopped = False
        self._matcher = matcher
        self._meter = meter or Meter()
        self._texts = texts
        self._counted = counted
        self._answer = Answer(RequestId(inner_id))
        self._ensemble = ensemble
        self._rest = b""
        self._streams = False
        self._ended = False
        self._made: list[int] = []  # the ids of a counted answer so far

    def begin(self, status: int, content_type: bytes) -> None:
        """An error or an answer, whole or in events."""
        self._answer.begin(status, content_type)
        self._streams = self._answer.streams

    def read(self, piece: bytes) -> list[Event]:
        """The events that a piece completes."""
        self._rest += piece
        if not self._streams:
            return []
        *whole, self._rest = self._rest.split(EVENT_END)
        events = []
        for each in whole:
            if each and not self.stopped:
                events.append(self._event(each.removeprefix(EVENT)))
        return events

    def end(self) -> list[Event]:
        """The event of a whole answer; the last one of a stream that the engine does not mark."""
        rest, self._rest = self._rest, b""
        events = []
        if rest.strip() and not self.stopped:
            events.append(self._event(rest.removeprefix(EVENT)))
        if self._streams and not self._ended:
            last = self._finish()
            self._meter.finish = last.get("finish_reason", "")
            left: list[int] = []
            if self._matcher is not None:
                left, last["num_output_tokens"] = self._matcher.end(), 0
            events.append([0, left, True, 0, last])
        return events

    def _event(self, data: bytes) -> Event:
        found: dict[str, Any] = json.loads(data)
        if "error" in found:
            self._ended = True
            named = f"in ensemble '{self._ensemble}', {found['error']}".encode()
            status = Answer(self._answer.request_id)
            status.status = 400 if self._answer.status in (200, 400) else self._answer.status
            return [0, found["error"], CODES.get(status.status_of(named), FAILED)]
        ids = self._texts.counted(
            _list(found.get("output_ids", [])), _one(found, "sequence_length")
        )
        whole = not self._streams
        if self._counted is not None:
            if whole:
                ids = ids[self._counted.in_front :]
            self._made += ids
        self._meter.chunk(len(ids))
        outputs: dict[str, Any] = {
            name: _list(found[name])[0]
            for name in ("finish_reason", "num_output_tokens")
            if name in found
        }
        if "output_log_probs" in found:
            made = _list(found["output_log_probs"])
            outputs["output_log_probs"] = made if self._counted is None else made[-len(ids) :]
        self._ended = whole or found.get("stream_end") is True
        cut = _one(found, "text_cut") or 0
        if self._matcher is not None:
            outputs.setdefault("num_output_tokens", len(ids))
            try:
                ids, cut = self._watched(self._matcher, ids)
            except Exception as error:  # whatever a tokenizer_type raises: this answer's alone
                log.error("tokens could not be decoded: %s", error)
                return [0, failure(error), FAILED]
        if self._ended:
            outputs = self._finish() | outputs
            if self.stopped:
                outputs["finish_reason"] = "stop"
            self._meter.finish = outputs.get("finish_reason", "")
        return [0, ids, self._ended, cut, outputs]

    def _watched(self, matcher: StopMatcher, ids: list[int]) -> tuple[list[int], int]:
        """What may leave of new ids, and the characters of the last that do not."""
        passed = matcher.push(ids)
        if matcher.stopped:
            self.stopped = self._ended = True
        elif self._ended:
            passed += matcher.end()
        return passed, matcher.cut

    def _finish(self) -> dict[str, Any]:
        """Why a counted answer ended."""
        self._ended = True
        if self._counted is None:
            return {}
        return {"finish_reason": finish_reason(self._counted, self._made)}


def finish_reason(counted: "CountedPrompt", ids: list[int]) -> str:
    """Why an answer of these ids ended, where the engine does not say it."""
    return reason(counted, ids, cancelled=False).decode()


def _list(value: Any) -> list[Any]:
    """A tensor's values, of which Triton writes one alone in no list."""
    return value if isinstance(value, list) else [value]


def _one(found: dict[str, Any], name: str) -> int | None:
    value = _list(found[name]) if name in found else []
    return int(value[0]) if value else None
