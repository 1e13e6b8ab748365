# SPDX-License-Identifier: Apache-2.0
"""What is made of one request: its prompts, and for each the sequences that grow step by step."""

from collections.abc import Callable

from trellis.engine_host.engines.engine import Extras, FinishReason, Progress, Sampling
from trellis.pipeline.stop_strings import StopMatcher


class Sequence:
    """One generated sequence: ids not yet sent, and how it stands."""

    __slots__ = (
        "begun",
        "counted",
        "cum_log_prob",
        "cut",
        "extras",
        "finish",
        "ids",
        "log_probs",
        "matcher",
        "sent",
        "sent_end",
        "total",
    )

    def __init__(self, prefix: list[int], matcher: StopMatcher | None) -> None:
        self.ids = list(prefix)
        self.matcher = matcher
        self.log_probs: list[float] = []
        self.cum_log_prob = 0.0
        self.extras: Extras | None = None  # not yet sent
        self.total = 0
        self.counted = 0  # of those, told in the responses so far
        self.cut = 0
        self.finish: FinishReason | None = None
        self.begun = self.sent = 0  # chunks: handed to Triton, and taken by it
        self.sent_end = False

    @property
    def done(self) -> bool:
        return self.finish is not None

    def take(self, progress: Progress, end_ids: frozenset[int]) -> None:
        """Append what a step made, up to the first id that ends it; that is no part of the answer.

        Engines make none of `end_ids` before `min_tokens`, and need not end at each of them.
        """
        ids, self.finish = progress.ids, progress.finish
        end: list[int] = []
        if not end_ids.isdisjoint(ids):
            at = next(at for at, token in enumerate(ids) if token in end_ids)
            ids, end = ids[:at], ids[at : at + 1]
            self.finish = "stop"
        self.total += len(ids)
        self.cum_log_prob = progress.cum_log_prob
        self.log_probs.extend(progress.log_probs[: len(ids)])
        if progress.extras is not None:
            self._take_extras(progress.extras, len(ids))
        self.ids.extend(ids if self.matcher is None else self._watched(self.matcher, ids, end))

    def _take_extras(self, new: Extras, count: int) -> None:
        """Keep what came beside the first `count` ids of a step."""
        before = self.extras or Extras()
        self.extras = Extras(
            [*before.top_log_probs, *new.top_log_probs[:count]],
            before.prompt_log_probs or new.prompt_log_probs,
            before.cached_tokens if new.cached_tokens is None else new.cached_tokens,
        )

    def _watched(self, matcher: StopMatcher, ids: list[int], end: list[int]) -> list[int]:
        """What may leave of the new ids; a stop word may end with the id that ends the answer."""
        passed = matcher.push(ids + end)
        self.cut = matcher.cut
        if matcher.stopped:
            self.finish = "stop"
            if end and passed[-1:] == end:  # the word begins inside it
                passed.pop()
                self.cut = 0
        elif self.finish is not None:
            passed += matcher.end()
            if end:
                passed.pop()
        return passed

    def stop(self) -> None:
        """End here, with what there is."""
        if self.finish is None:
            self.finish = "cancelled"
            if self.matcher is not None:
                self.ids.extend(self.matcher.end())


class Row:
    """One prompt of the client's batch, with as many sequences as it asked for."""

    __slots__ = ("end_ids", "input_tokens", "sampling", "sequences", "stream_key")

    def __init__(
        self,
        stream_key: int,
        sampling: Sampling,
        input_tokens: int,
        prefix: list[int],
        matcher: Callable[[], StopMatcher | None],
    ) -> None:
        self.stream_key = stream_key
        self.sampling = sampling
        self.end_ids = frozenset(sampling.end_ids)
        self.input_tokens = input_tokens
        self.sequences = [Sequence(prefix, matcher()) for _ in range(sampling.sequences)]

    @property
    def done(self) -> bool:
        return all(sequence.done for sequence in self.sequences)
