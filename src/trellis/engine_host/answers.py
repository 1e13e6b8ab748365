# SPDX-License-Identifier: Apache-2.0
"""What goes back to one request: tokens gathered until they are sent.

The scheduler feeds an `Answer`; its outlet sends what has gathered since it last looked. There are
two kinds: responses of Triton's (triton_answers.py), and events for the gateway
(step_answers.py). An answer ends exactly once, whatever happened to it.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from trellis.engine_host.abandoned_streams import Stream
from trellis.engine_host.engines.engine import Progress
from trellis.engine_host.sequences import Row, Sequence

# Names of Triton's error codes.
INVALID, INTERNAL, CANCELLED = "INVALID_ARG", "INTERNAL", "CANCELLED"
UNAVAILABLE = "UNAVAILABLE"  # Triton answers HTTP with 503
COUNTS = ("num_input_tokens", "num_output_tokens")
RETURNS = (*COUNTS, "finish_reason")  # what is returned when `return_...` asks for it


class Outlet(Protocol):
    """Where answers leave by."""

    def schedule(self, answer: Any) -> None:
        """Send what is new of this answer soon; once, however often this is called until then."""

    def step_ended(self) -> None:
        """All that a step made was scheduled."""


class Answer:
    """The answer to one request: fed and failed by the scheduler, sent by its outlet."""

    client = ""  # the token of the connection that it goes to, if it is known by one
    ensemble_step = False  # whether its chunks go to `postprocessing`
    submitted = 0.0  # of time.monotonic
    queued = 0.0  # seconds from then until the engine took it
    first_at = 0.0  # when the first token of an answer came that leaves whole

    def __init__(
        self,
        outlet: Outlet,
        rows: list[Row],
        streaming: bool,
        returns: frozenset[str],
        request_id: str = "",
    ) -> None:
        """`returns`: of RETURNS, what was asked for."""
        self.outlet = outlet
        self.rows = rows
        self.streaming = streaming
        self.request_id = request_id
        self.dropped = False  # nothing of it needs to run in the engine any more
        self._counts = [name for name in COUNTS if name in returns]
        self._reasons = "finish_reason" in returns
        self._error: tuple[str, str] | None = None  # the message and its code
        self._left = False  # nobody reads on
        self._lock = threading.Lock()  # held for moments: the scheduler waits for it

    def feed(self, row: int, progress: Progress) -> bool:
        """Take a step's tokens. True if the engine need not go on with this row."""
        if not (self.streaming or self.first_at):
            self.first_at = time.monotonic()
        with self._lock:
            state = self.rows[row]
            sequence = state.sequences[progress.sequence]
            if not sequence.done:
                sequence.take(progress, state.end_ids)
            return state.done and progress.finish is None

    @property
    def done(self) -> bool:
        """Whether all of it was made."""
        return all(row.done for row in self.rows)

    @property
    def ready(self) -> bool:
        """Whether there is something to send."""
        return self.streaming or self.done

    def fail(self, message: str, code: str = INTERNAL) -> None:
        """End with an error; `code` names one of Triton's."""
        with self._lock:
            self.dropped = True
            self._error = message, code

    def leave(self) -> None:
        """End: nobody reads on."""
        with self._lock:
            self.dropped = self._left = True

    def stop(self) -> None:
        """End with what there is, as cancelled."""
        with self._lock:
            self.dropped = True
            for row in self.rows:
                for sequence in row.sequences:
                    sequence.stop()

    def cancelled(self) -> bool:
        """Whether whoever asked is known to be gone."""
        return False

    def streams(self) -> Iterator[Stream]:
        """What `postprocessing` should know of and did not get the last chunk of. Any thread."""
        return iter(())

    def counted(self, row: Row, sequences: Iterable[Sequence]) -> dict[str, int]:
        """The token counts of a prompt that were asked for; they count as told.

        Output tokens are those that were not told before: in a stream the counts of its responses
        add up, as TensorRT-LLM's do.
        """
        made = 0
        for sequence in sequences:
            made += sequence.total - sequence.counted
            sequence.counted = sequence.total
        counts = {"num_input_tokens": row.input_tokens, "num_output_tokens": made}
        return {name: counts[name] for name in self._counts}
