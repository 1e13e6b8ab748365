# SPDX-License-Identifier: Apache-2.0
"""Answers as events of the step socket: for the gateway, one sequence of one prompt each."""

import time
from typing import Any

import numpy as np

from trellis.engine_host.answers import Answer, Outlet
from trellis.engine_host.engines.engine import Extras
from trellis.engine_host.request_reader import Asked
from trellis.engine_host.sequences import Row, Sequence
from trellis.errors import RequestError
from trellis.ipc.frames import SUMMARY


class StepAnswer(Answer):
    """The answer to a request that came by the step socket."""

    def __init__(self, number: int, outlet: Outlet, asked: Asked, request_id: str) -> None:
        """`number`: how the gateway knows it. Raises RequestError for several sequences."""
        if len(asked.rows) != 1 or asked.rows[0].sampling.sequences != 1:
            raise RequestError("num_return_sequences: the step socket has one sequence a request")
        super().__init__(outlet, asked.rows, asked.streaming, asked.returns, request_id)
        self.number = number
        self.ended = False  # its last event was made

    def event(self) -> list[Any] | None:
        """What is new, as ipc/frames.py has it; None if nothing is."""
        with self._lock:
            return None if self.ended else self._event()

    def _event(self) -> list[Any] | None:
        (row,) = self.rows
        (sequence,) = row.sequences
        if self._error is not None:
            self.ended = True
            return [self.number, *self._error]
        if self._left:
            self.ended = True
            return None
        if not (sequence.done or (self.streaming and sequence.ids)):
            return None
        ids, sequence.ids = sequence.ids, []
        outputs: dict[str, Any] = {}
        if sequence.done:
            outputs[SUMMARY] = self._summary(sequence)
        if row.sampling.log_probs:
            outputs["cum_log_probs"] = np.float32(sequence.cum_log_prob).item()
            outputs["output_log_probs"] = np.array(sequence.log_probs, np.float32).tolist()
            sequence.log_probs = []
        if sequence.extras is not None:
            outputs |= self._extras(row, sequence)
        if self._counts:
            outputs |= self.counted(row, row.sequences)
        self.ended = sequence.done
        if sequence.done and self._reasons:
            outputs["finish_reason"] = sequence.finish
        if sequence.done and row.sampling.return_total_tokens:
            outputs["total_tokens"] = sequence.total
        if not (outputs or sequence.done):
            return [self.number, ids]
        return [self.number, ids, sequence.done, sequence.cut, outputs]

    def _summary(self, sequence: Sequence) -> list[Any]:
        """How it went, for the gateway's figures: see ipc/frames.py."""
        cached = sequence.extras and sequence.extras.cached_tokens
        lasted = time.monotonic() - self.first_at if self.first_at else 0.0
        return [sequence.finish, cached, round(self.queued, 6), round(lasted, 6)]

    def _extras(self, row: Row, sequence: Sequence) -> dict[str, Any]:
        """What few ask for, told once; the cached tokens with the last event alone."""
        extras = sequence.extras or Extras()
        told: dict[str, Any] = {}
        if row.sampling.top_log_probs:
            told["top_log_probs"] = extras.top_log_probs
        if extras.prompt_log_probs is not None:
            told["prompt_log_probs"] = extras.prompt_log_probs
        if sequence.done and extras.cached_tokens is not None:
            told["cached_tokens"] = extras.cached_tokens
        sequence.extras = None if sequence.done else Extras(cached_tokens=extras.cached_tokens)
        return told
