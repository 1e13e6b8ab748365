# SPDX-License-Identifier: Apache-2.0
"""Answers as responses of Triton's: tensors, sent by threads (senders.py)."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from trellis.engine_host.abandoned_streams import Stream
from trellis.engine_host.answers import CANCELLED, INTERNAL, Answer, Outlet
from trellis.engine_host.sequences import Row, Sequence

ENDS = {end: np.array([[end]], np.bool_) for end in (False, True)}


class TritonAnswer(Answer):
    """The answer to a request that came by Triton."""

    def __init__(
        self,
        sender: Any,
        outlet: Outlet,
        rows: list[Row],
        streaming: bool,
        returns: frozenset[str],
        request_id: str = "",
        client: str = "",
        ensemble_step: bool = False,
        keyed: bool = True,
        skip_special_tokens: bool | None = None,
        lengths: bool = False,
    ) -> None:
        """`returns`: of RETURNS, what was asked for. `client`: the token of its connection.

        `ensemble_step`: chunks go to `postprocessing`. `keyed`: somebody reads the stream's key.
        `skip_special_tokens`: what the client said, which `postprocessing` learns from the chunks:
        Triton has no input of an ensemble in a step that follows a decoupled one.
        `lengths`: say how long each sequence is, also where it can be seen: TensorRT-LLM's clients
        read that. It costs, so nobody else is told.
        """
        super().__init__(outlet, rows, streaming, returns, request_id)
        self.sender = sender
        self.client = client
        self.ensemble_step = ensemble_step
        self._keyed = keyed
        self._lengths = lengths
        # None where nobody would read it.
        self._skip_special_tokens = skip_special_tokens if ensemble_step else None
        self.ended = False  # the final flag was sent, or is being sent
        # Senders' own marks: queued or being flushed; and fed again since.
        self.scheduled = False
        self.again = False
        self._sending = threading.Lock()  # held while Triton is spoken to

    def leave(self) -> None:
        """End at the next flush: nobody reads on.

        A stream ends without an error: one that comes while a chunk is in `postprocessing` leaves
        the request unfinished in Triton 24.10 for ever.
        """
        if self.streaming:
            super().leave()
        else:
            self.fail("the client cancelled the request", CANCELLED)

    def abort(self, message: str) -> None:
        """End now, whatever was half sent: with an error if that can be sent, else with nothing."""
        with self._lock:
            self.dropped = self.ended = True
        with self._sending:
            with contextlib.suppress(Exception):
                self.sender.send(error_response(message, INTERNAL))
            with contextlib.suppress(Exception):
                self.sender.send(flags=final_flag())

    def cancelled(self) -> bool:
        """Whether Triton says that nobody waits for this answer; never asked after its end."""
        with self._sending:
            return not self.ended and bool(self.sender.is_cancelled())

    def streams(self) -> Iterator[Stream]:
        """What `postprocessing` should know of and did not get the last chunk of. Any thread."""
        if self.ensemble_step and self.streaming:
            for row in self.rows:
                for index, sequence in enumerate(row.sequences):
                    sent = sequence.sent
                    if sequence.begun and not sequence.sent_end:
                        yield Stream(row.stream_key + index, self, sequence.begun, sent)

    def flush(self) -> None:
        """Send what is new; with the last of it the final flag."""
        with self._lock:
            if self.ended:
                return
            responses, last = self._responses()
            self.ended = last
        with self._sending:
            for index, response in enumerate(responses):
                final = last and index == len(responses) - 1
                self.sender.send(response, flags=final_flag() if final else 0)
            if last and not responses:
                self.sender.send(flags=final_flag())
        for row in self.rows:
            for sequence in row.sequences:
                sequence.sent = sequence.begun

    def _responses(self) -> tuple[list[Any], bool]:
        if self._error is not None:
            return [error_response(*self._error)], True
        if self._left:
            return [], True
        done = self.done
        if not self.streaming:
            return ([pb_utils.InferenceResponse(self._whole())] if done else []), done
        return [pb_utils.InferenceResponse(chunk) for chunk in self._chunks()], done

    def _chunks(self) -> Iterator[list[Any]]:
        """One response for each sequence that has something new."""
        many = len(self.rows) > 1 or len(self.rows[0].sequences) > 1
        for row_index, row in enumerate(self.rows):
            for index, sequence in enumerate(row.sequences):
                if sequence.sent_end or not (sequence.ids or sequence.done):
                    continue
                sequence.sent_end = sequence.done
                sequence.begun += 1
                tensors = self._chunk(row, index, sequence)
                if many:
                    tensors.append(_tensor("batch_index", [[row_index]], np.int32))
                    tensors.append(_tensor("sequence_index", [[index]], np.int32))
                if self._counts:
                    tensors.extend(self._count([row], [sequence]))
                if self._reasons and sequence.finish is not None:
                    tensors.append(_reasons([[sequence]]))
                yield tensors

    def _chunk(self, row: Row, index: int, sequence: Sequence) -> list[Any]:
        """The new ids of one sequence, [1, 1, n], under its key. Empties the sequence."""
        tensors = [_tensor("output_ids", [[sequence.ids]], np.int32)]
        if self._keyed:
            tensors.append(_tensor("stream_key", [[row.stream_key + index]], np.uint64))
        if self._keyed or sequence.done:
            tensors.append(pb_utils.Tensor("stream_end", ENDS[sequence.done]))
        if self._lengths:
            tensors.append(_tensor("sequence_length", [[len(sequence.ids)]], np.int32))
        if sequence.cut:
            tensors.append(_tensor("text_cut", [[sequence.cut]], np.int32))
        tensors.extend(self._passed_on(1))
        if row.sampling.log_probs:
            tensors.extend(_log_probs([[sequence]]))
            sequence.log_probs = []
        sequence.ids = []
        return tensors

    def _whole(self) -> list[Any]:
        """The one response of a request that does not stream: [rows, sequences, longest]."""
        ids = [[sequence.ids for sequence in row.sequences] for row in self.rows]
        tensors = [
            pb_utils.Tensor("output_ids", _padded(ids)),
        ]
        if self._keyed:
            tensors.append(
                _tensor("stream_key", [[row.stream_key] for row in self.rows], np.uint64)
            )
        tensors.append(_tensor("stream_end", [[True] for _ in self.rows], np.bool_))
        if self._lengths or len(self.rows) > 1 or len(ids[0]) > 1:
            lengths = [[len(sequence) for sequence in row] for row in ids]
            tensors.append(_tensor("sequence_length", lengths, np.int32))
        if any(sequence.cut for row in self.rows for sequence in row.sequences):
            cuts = [[sequence.cut for sequence in row.sequences] for row in self.rows]
            tensors.append(_tensor("text_cut", cuts, np.int32))
        tensors.extend(self._passed_on(len(self.rows)))
        if any(row.sampling.log_probs for row in self.rows):
            tensors.extend(_log_probs([row.sequences for row in self.rows]))
        if self._reasons:
            tensors.append(_reasons([row.sequences for row in self.rows]))
        return tensors + self._count(self.rows, *(row.sequences for row in self.rows))

    def _passed_on(self, rows: int) -> list[Any]:
        """What goes through this model to `postprocessing`, [rows, 1], if it was sent."""
        skip = self._skip_special_tokens
        return [] if skip is None else [_tensor("skip_special_tokens", [[skip]] * rows, np.bool_)]

    def _count(self, rows: list[Row], *sequences: list[Sequence]) -> list[Any]:
        """The token counts that were asked for, [rows, 1] int32 each."""
        pairs = zip(rows, sequences, strict=True)
        counts = [self.counted(row, of_row) for row, of_row in pairs]
        return [
            _tensor(name, [[count[name]] for count in counts], np.int32) for name in self._counts
        ]


def final_flag() -> int:
    """What tells Triton that no response comes after this one."""
    return int(pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def error_response(message: str, code: str) -> Any:
    """A response that is an error; `code` names one of Triton's error codes.

    Those are there only once Triton has filled `pb_utils`, after this module is imported.
    """
    error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
    return pb_utils.InferenceResponse(error=error)


def empty_response(rows: int, stream_keys: np.ndarray | None) -> Any:
    """An answer without tokens, [rows, 1, 0] int32; `stream_keys`: [rows, 1] uint64."""
    tensors = [] if stream_keys is None else [pb_utils.Tensor("stream_key", stream_keys)]
    tensors += [
        pb_utils.Tensor("output_ids", np.zeros((rows, 1, 0), np.int32)),
        pb_utils.Tensor("stream_end", np.ones((rows, 1), np.bool_)),
        pb_utils.Tensor("sequence_length", np.zeros((rows, 1), np.int32)),
    ]
    return pb_utils.InferenceResponse(tensors)


def _log_probs(rows: list[list[Sequence]]) -> list[Any]:
    cumulative = [[sequence.cum_log_prob for sequence in row] for row in rows]
    each = [[sequence.log_probs for sequence in row] for row in rows]
    return [
        _tensor("cum_log_probs", cumulative, np.float32),
        pb_utils.Tensor("output_log_probs", _padded(each, np.float32)),
    ]


def _reasons(rows: list[list[Sequence]]) -> Any:
    """Why each sequence ended, [rows, sequences]: stop, length or cancelled."""
    reasons = [[str(sequence.finish).encode() for sequence in row] for row in rows]
    return _tensor("finish_reason", reasons, np.object_)


def _tensor(name: str, values: Any, dtype: Any) -> Any:
    return pb_utils.Tensor(name, np.array(values, dtype))


def _padded(rows: list[list[list[Any]]], dtype: Any = np.int32) -> np.ndarray:
    """[rows, sequences, longest]; shorter sequences end in zeros, their lengths are sent beside."""
    longest = max(len(sequence) for row in rows for sequence in row)
    array = np.zeros((len(rows), max(map(len, rows)), longest), dtype)
    for row_index, row in enumerate(rows):
        for index, sequence in enumerate(row):
            array[row_index, index, : len(sequence)] = sequence
    return array
