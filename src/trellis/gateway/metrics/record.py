# SPDX-License-Identifier: Apache-2.0
"""What is known of one request over HTTP, gathered while it is answered."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from trellis.gateway.metrics.meter import Meter
from trellis.gateway.refusals import Refusal

RECORD = "trellis.record"  # where a scope has it
OTHER = "other"  # the endpoint of all that asks no model
DISCONNECTED, FAILED, UNKNOWN = "disconnected", "error", "unknown"
TOO_LONG = "context_length_exceeded"  # OpenAI's code of a prompt that does not fit
REASONS = {
    400: "invalid_request", 401: "unauthorized", 403: "forbidden", 404: "not_found",
    405: "method", 408: "timeout", 413: "too_large", 414: "too_large", 415: "media_type",
    429: "rate_limit", 431: "too_large",
    500: "internal", 501: "not_supported", 502: "engine_lost", 503: "unavailable",
}  # fmt: skip
GONE = 499  # what others log for a client that left before its answer began


class Record:
    """One request. Times are of time.monotonic, in seconds."""

    def __init__(self, request_id: str = "") -> None:
        self.request_id = request_id
        self.started = time.monotonic()
        self.ended = 0.0
        self.probes = False  # it asks for the server's health alone
        self.endpoint = OTHER
        self.model = ""  # the ensemble's name; "" until it was found
        self.adapter = ""  # a LoRA adapter that the model has
        self.status = 0  # 0: no answer has begun
        self.reason = ""  # why it was rejected
        self.failed = False  # it has an error after its answer began
        self.traceparent = ""  # of the span that whoever is asked for it belongs to
        self.span: Any = None  # of the request itself, where there are spans
        self.prompt = ""  # its text, where the log is to have it
        self.left = False  # its client did, before the answer was complete
        self.prompt_tokens = 0
        self.sequences = 1  # of each of its prompts
        self.meters: list[Meter] = []  # of its sequences, those of a prompt side by side
        self.spans: dict[str, tuple[float, float]] = {}  # begin and end of its parts, by name
        self.told = [0, 0, 0]  # of PROMPT, CACHED and MADE tokens, what the registry has
        self.told_seconds = 0.0  # and of the times between chunks

    def end(self) -> None:
        """It was answered, or will not be."""
        self.ended = time.monotonic()
        if self.status >= HTTPStatus.BAD_REQUEST and not self.reason:  # the model rejected it
            self.reason = REASONS.get(self.status, "other")

    def reject(self, refusal: Refusal) -> None:
        """It gets an error instead of an answer."""
        self.reason = REASONS.get(refusal.status, "other")
        if getattr(refusal, "code", None) == TOO_LONG:
            self.reason = TOO_LONG

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Note when a part of the work began and ended."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.spans[part] = (begin, time.monotonic())

    def seconds(self, part: str) -> float | None:
        """How long a part took; None if there was none."""
        span = self.spans.get(part)
        return None if span is None else span[1] - span[0]

    @property
    def first_at(self) -> float:
        """When its first token came; 0: none did."""
        began = [meter.first_token_at for meter in self.meters]
        return min((at for at in began if at), default=0.0)

    @property
    def answered(self) -> bool:
        """Whether its prompts were read by a model: a token came, or a whole answer of none."""
        whole = self.ended and self.status == 200 and not self.meters
        return bool(self.first_at or (whole and self.prompt_tokens))

    @property
    def tokens(self) -> int:
        """That were made for it so far."""
        return sum(meter.tokens for meter in self.meters)

    @property
    def cached(self) -> int | None:
        """Tokens of its prompts from the prefix cache; None: not said.

        Each prompt counts once, by its first sequence.
        """
        firsts = self.meters[:: self.sequences]
        said = [meter.cached for meter in firsts if meter.cached is not None]
        return sum(said) if said else None

    @property
    def finish_reason(self) -> str:
        """Why its answer ended; that of the first sequence. "" where no tokens are made."""
        if self.left:
            return DISCONNECTED
        if self.failed:
            return FAILED
        if not self.meters or self.status >= 400:
            return ""
        return self.meters[0].finish or UNKNOWN


def record_of(scope: Any) -> Record:
    """The record of a request; a new one where nobody keeps it, as in tests of a part."""
    found: Record = scope.get(RECORD) or Record()
    return found
