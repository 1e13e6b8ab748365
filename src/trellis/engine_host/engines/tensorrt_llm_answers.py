# SPDX-License-Identifier: Apache-2.0
"""What is new of an answer of TensorRT-LLM's LLM API.

The library hands out one object a request and changes it: ids so far, of every sequence. Its own
`token_ids_diff` is stale where another sequence moved, so what was taken is counted here.
"""

from typing import Any

from trellis.engine_host.engines.async_engine import Events
from trellis.engine_host.engines.engine import (
    Extras,
    Failure,
    FinishReason,
    Progress,
    Sampling,
    TopLogProbs,
)
from trellis.errors import RequestError

FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "cancelled": "cancelled"}
TIMED_OUT = "the engine gave this request up after a time limit of its own; send it again"


class NewTokens:
    """One request's answer, read after each change."""

    def __init__(self, key: int, sampling: Sampling, guide_end: int = -1) -> None:
        """`guide_end`: the id that the library's tokenizer ends a guide with."""
        self._key = key
        self._max_tokens = sampling.max_tokens
        self._beams = sampling.beam_width > 1
        self._end_ids = sampling.end_ids
        self._log_probs = sampling.log_probs
        self._top_log_probs = sampling.top_log_probs
        self._return_cached_tokens = sampling.return_cached_tokens
        # Of the guide and not of the text, unless the client named it.
        self._guide_end = guide_end if guide_end not in sampling.end_ids else -1
        self._taken = [0] * sampling.sequences  # ids, of each sequence
        self._cum_log_probs = [0.0] * sampling.sequences
        self._ended: set[int] = set()

    @property
    def begun(self) -> bool:
        """Whether any id came."""
        return any(self._taken)

    def take(self, answer: Any) -> Events:
        """What came since the last call; of beams nothing before the end, since they change."""
        if self._beams and not answer.finished:
            return []
        events: Events = []
        for output in answer.outputs:
            if output.index in self._ended:
                continue
            event = self._event(output, answer)
            if event is not None:
                events.append(event)
        return events

    def _event(self, output: Any, answer: Any) -> Progress | Failure | None:
        if output.finish_reason == "timeout":
            self._ended.add(output.index)
            return Failure(self._key, TIMED_OUT)
        begin = self._taken[output.index]
        ids = output.token_ids[begin:]
        self._taken[output.index] = begin + len(ids)
        log_probs = self._logged(output, begin, ids) if self._log_probs else []
        finish = self._finish(output, bool(answer.finished))
        if finish == "stop" and ids[-1:] == [self._guide_end]:
            ids, log_probs = ids[:-1], log_probs[:-1]
        if finish == "stop" and begin <= len(output.token_ids):
            ids = [*ids, *self._left_out(output)]
        if finish is None and not ids:
            return None
        if finish is not None:
            self._ended.add(output.index)
        cum_log_prob = self._cum_log_probs[output.index]
        extras = None
        if self._top_log_probs or (self._return_cached_tokens and not begin):
            extras = self._extras(output, begin, len(ids), answer)
        return Progress(self._key, output.index, ids, finish, log_probs, cum_log_prob, extras)

    def _extras(self, output: Any, begin: int, count: int, answer: Any) -> Extras:
        """What is asked for beside `count` ids from `begin` on."""
        tops: list[TopLogProbs] = []
        if self._top_log_probs:
            entries = output.logprobs[begin : begin + count]
            tops = [_likeliest(entry, self._top_log_probs) for entry in entries]
        # Releases before 1.2 do not say it.
        cached = getattr(answer, "cached_tokens", None) if self._return_cached_tokens else None
        return Extras(tops, None, cached)

    def _finish(self, output: Any, last: bool) -> FinishReason | None:
        """Why a sequence ended. Of several the library tells only the last one's reason."""
        if output.finish_reason is not None:
            return FINISH[output.finish_reason]
        if not last:
            return None
        return "length" if self._taken[output.index] >= self._max_tokens else "stop"

    def _left_out(self, output: Any) -> list[int]:
        """The id that ended a sequence, where the library left it out or cut it off again.

        A stop word may end with it. Of several sequences the library tells only the last one's.
        """
        end = output.stop_reason
        if end is None:  # it was the first, the library's `end_id`, unless this is not told
            told = output.finish_reason is not None
            sure = told or (len(self._end_ids) == 1 and self._guide_end == -1)
            end = self._end_ids[0] if self._end_ids and sure else None
        wanted = end in self._end_ids and output.token_ids[-1:] != [end]
        return [int(end)] if end is not None and wanted else []

    def _logged(self, output: Any, begin: int, ids: list[int]) -> list[float]:
        """The log probability of each new id. Raises RequestError where the library has none."""
        entries = (output.logprobs or [])[begin : begin + len(ids)]
        if len(entries) < len(ids):
            raise _without_log_probs()
        values = [_log_prob(entry, token) for entry, token in zip(entries, ids, strict=True)]
        told = output.cumulative_logprob
        so_far = self._cum_log_probs[output.index] + sum(values)
        self._cum_log_probs[output.index] = so_far if told is None else float(told)
        return values


def _likeliest(entry: Any, most: int) -> TopLogProbs:
    """Of one token, without the chosen one where that is none of them: the library has it too."""
    ranked = sorted(entry.items(), key=lambda item: -item[1].logprob)[:most]
    return [(token, float(value.logprob)) for token, value in ranked]


def _log_prob(entry: Any, token: int) -> float:
    """Of the chosen id: the library lists the likeliest, or names one number."""
    if isinstance(entry, float):
        return entry
    chosen = entry.get(token)
    if chosen is None:
        raise _without_log_probs()
    return float(chosen.logprob)


def _without_log_probs() -> RequestError:
    return RequestError(
        "return_log_probs: this release of TensorRT-LLM does not tell that of a chosen token;"
        " leave it out"
    )
