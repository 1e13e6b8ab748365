# SPDX-License-Identifier: Apache-2.0
"""Choosing tokens for the `transformers` engine, each request by its own settings.

The library's continuous batching samples a whole batch one way. This takes its place as the one
logits processor: it picks every row's token and leaves only that one possible. Draws depend on a
request's seed and position alone, not on what else is in the batch. Ranks choose alike because all
take rank 0's choice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
)

from trellis.engine_host.engines.engine import Sampling

Agree = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class SequenceSampling:
    """How to sample one sequence; several sequences of a request differ in their number."""

    sampling: Sampling
    sequence: int = 0

    def uniform(self, position: int) -> float:
        """The number in [0, 1) that decides the token at this position."""
        seed = self.sampling.seed
        return Random(f"{seed} {self.sequence} {position}").random()


class _Row:
    """One row of the batch: settings, prompt and what was generated so far."""

    __slots__ = ("generated", "index", "prompt", "spec")

    def __init__(self, index: int, state: Any) -> None:
        self.index = index
        self.spec: SequenceSampling = state.logit_processor_kwargs["sequence"]
        # A request that was moved out of the cache comes back with its output behind its prompt.
        cut = state._true_initial_tokens or len(state.initial_tokens)
        self.prompt: list[int] = state.initial_tokens[:cut]
        self.generated: list[int] = state.initial_tokens[cut:] + state.generated_tokens


class PerRequestSampler(ContinuousBatchingLogitsProcessor):
    """The logits processor that chooses. Not for graphs: it reads Python state every step."""

    supported_kwargs = {"sequence": SequenceSampling}  # noqa: RUF012  (the library's way)
    ignored_kwargs: tuple[str, ...] = ()

    def __init__(self, agree: Agree) -> None:
        self._agree = agree
        self._rows: list[_Row] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """The library keeps one number a row for each processor; this one needs none."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Note who is in the next batch."""
        self._rows = [_Row(i, future.state) for i, future in enumerate(requests_with_new_token)]
        return torch.zeros(len(self._rows), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocab] in, the same shape out: 0 for the token chosen, else -inf."""
        for row in self._rows:
            _forbid_early_end(scores, row)
            _penalize(scores, row)
        chosen = scores.argmax(dim=-1)
        drawing = [row for row in self._rows if row.spec.sampling.sample]
        if drawing:
            rows = torch.tensor([row.index for row in drawing], device=scores.device)
            chosen[rows] = draw(scores[rows], drawing)
        chosen = self._agree(chosen)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.unsqueeze(1), 0.0)


def _forbid_early_end(scores: torch.Tensor, row: _Row) -> None:
    sampling = row.spec.sampling
    if len(row.generated) < sampling.min_tokens and (ends := sampling.end_ids):
        scores[row.index, list(ends)] = -torch.inf


def _penalize(scores: torch.Tensor, row: _Row) -> None:
    """Repetition counts prompt and output; presence and frequency what was generated."""
    sampling = row.spec.sampling
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*row.prompt, *row.generated}), device=scores.device)
        values = scores[row.index, seen]
        penalty = sampling.repetition_penalty
        scores[row.index, seen] = torch.where(values > 0, values / penalty, values * penalty)
    if row.generated and (sampling.presence_penalty or sampling.frequency_penalty):
        made = torch.tensor(row.generated, device=scores.device)
        ids, counts = made.unique(return_counts=True)
        scores[row.index, ids] -= (
            sampling.presence_penalty + sampling.frequency_penalty * counts.float()
        )


def draw(scores: torch.Tensor, rows: list[Any]) -> torch.Tensor:
    """One token for each row, [rows], drawn from scores [rows, vocab] after each one's settings."""

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=scores.device, dtype=torch.float32).unsqueeze(1)

    settings = [row.spec.sampling for row in rows]
    scores = scores / column([s.temperature for s in settings])
    order = None
    if any(s.top_k > 0 or 0 < s.top_p < 1 for s in settings):
        scores, order = scores.sort(dim=-1, descending=True)
        places = torch.arange(scores.shape[-1], device=scores.device)
        scores[places >= column([s.top_k or scores.shape[-1] for s in settings])] = -torch.inf
        before = scores.softmax(-1).cumsum(-1) - scores.softmax(-1)
        kept = column([s.top_p if 0 < s.top_p < 1 else 2.0 for s in settings])
        scores[before >= kept] = -torch.inf
    reached = scores.softmax(-1).cumsum(-1)
    # Of the total, not of 1: what rounding lost must not fall past the last token.
    wanted = column([row.spec.uniform(len(row.generated)) for row in rows]) * reached[:, -1:]
    place = (reached <= wanted).sum(-1, keepdim=True).clamp_(max=scores.shape[-1] - 1)
    return (place if order is None else order.gather(1, place)).squeeze(1)
