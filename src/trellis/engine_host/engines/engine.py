# SPDX-License-Identifier: Apache-2.0
"""What every Python engine implements, and the words it is spoken to in.

An engine knows nothing of Triton: it takes token ids and sampling settings under a key, and each
`step` yields what is new under those keys. One thread owns it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

# Of which the host tells a library's tokenizer the ids, to see that both read it alike.
TOKENIZER_SAMPLE = "The quick brown fox: 123 + 4.5 = ?\n\tdef f(x): é 안녕 日本 Столица 😀"
MAX_FAILED_STEPS = 3  # in a row, after which an engine is given up

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(slots=True)
class Sampling:
    """How to generate. The defaults are neutral: greedy, no penalties, one sequence."""

    max_tokens: int = 1
    min_tokens: int = 1  # as in TensorRT-LLM: an answer is never empty, unless 0 is asked for
    end_id: int = -1  # -1: none
    stop_token_ids: tuple[int, ...] = ()  # further ids that end an answer, as end_id does
    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 0.0  # 0 or 1: all
    min_p: float = 0.0  # of the likeliest id's probability; 0: all
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0  # of ids that occur once at most, the prompt's too; 0: none
    length_penalty: float = 1.0
    seed: int = 0
    beam_width: int = 1
    num_return_sequences: int = 1
    log_probs: bool = False
    bad_words: tuple[str, ...] = ()  # texts that must not appear in the answer
    guide_type: str = ""  # of pipeline/guided_decoding.py; "": the answer is held to nothing
    guide: str = ""
    lora_name: str = ""  # the adapter; "": none
    bias_ids: tuple[int, ...] = ()  # ids whose logits are changed, each once
    bias_weights: tuple[float, ...] = ()  # by how much, one an id
    sample: bool = False
    # Asked by the step socket alone (step_inputs.py).
    top_log_probs: int = 0  # how many of the likeliest ids are told for each token
    prompt_log_probs: bool = False
    return_cached_tokens: bool = False
    priority: int = 0  # lower runs first
    # What the engine host does of those.
    return_total_tokens: bool = False
    include_stop_words: bool = False  # whether a text ends behind its stop word

    @property
    def end_ids(self) -> tuple[int, ...]:
        """All ids that end an answer, each once; () if it never ends on a token."""
        first = (self.end_id,) if self.end_id >= 0 else ()
        return tuple(dict.fromkeys((*first, *self.stop_token_ids)))

    @property
    def extras(self) -> bool:
        """Whether anything of Extras is asked for."""
        return bool(self.top_log_probs or self.prompt_log_probs or self.return_cached_tokens)

    @property
    def sequences(self) -> int:
        """How many sequences the client gets back for a prompt."""
        return max(self.beam_width, self.num_return_sequences)


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is loaded with. Sizes in tokens; `None` leaves the choice to the engine."""

    path: Path
    max_batch_size: int
    max_seq_len: int | None = None
    max_tokens_in_paged_kv_cache: int | None = None
    max_attention_window_size: int | None = None
    enable_kv_cache_reuse: bool = True
    kv_cache_free_gpu_mem_fraction: float | None = None
    dtype: str = ""  # "": as the checkpoint has it
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    lora_adapters: Mapping[str, str] = field(default_factory=dict)  # name -> folder
    prompt_lookup: int | None = None  # tokens guessed from the prompt for each step
    draft_engine: str = ""  # the folder of a smaller model that guesses
    tokenizer: Path | None = None  # the folder of its files
    tokenizer_sample: tuple[int, ...] = ()  # what TOKENIZER_SAMPLE is encoded to


TopLogProbs = list[tuple[int, float]]  # ids and log probabilities, the likeliest first


class Extras(NamedTuple):
    """What few requests ask for, beside a step's ids."""

    top_log_probs: Sequence[TopLogProbs] = ()  # of each id
    # Of the prompt's tokens, once, with the first ids; None for the first token.
    prompt_log_probs: list[tuple[float, TopLogProbs] | None] | None = None
    cached_tokens: int | None = None  # of the prompt, from the prefix cache; with the first ids


class Progress(NamedTuple):
    """What one step made for one sequence; `finish` is set with the last of it."""

    key: int
    sequence: int
    ids: list[int]
    finish: FinishReason | None
    log_probs: list[float]
    cum_log_prob: float
    extras: Extras | None = None


class Failure(NamedTuple):
    """One request that ended in an error; the engine has forgotten it.

    `rejected`: the request is at fault, which the message names by the client's input.
    """

    key: int
    message: str
    rejected: bool = False


class Figures(NamedTuple):
    """What an engine says of itself, for the metrics page; None: it does not say. Sums are since
    it was loaded.
    """

    kv_cache_usage: float | None = None  # the part in use, 0 to 1
    prefix_queries: int | None = None  # tokens of prompts that were looked for in the prefix cache
    prefix_hits: int | None = None  # and found there
    preemptions: int | None = None
    constraints: int | None = None  # that were compiled
    constraint_seconds: float | None = None  # that took


class Engine(Protocol):
    """A continuous-batching engine. Every method is called from one thread, but `refuse`.

    One whose `step` waits for another process may have `wake()`, for any thread: it has `step` or
    the next one return at once, since there is something new to take. It has `moves`, a number that
    changes as that process goes on. One that may take long over what is no step has `allow`, which
    it calls with the seconds. One that has figures has `figures() -> Figures`, which is asked a few
    times a second.
    """

    def refuse(self, sampling: Sampling) -> None:
        """Raise RequestError if this engine can't do what `sampling` asks. Any thread, no state."""

    def add(self, key: int, ids: np.ndarray, sampling: Sampling) -> None:
        """Queue a prompt ([n] int64); what `step` yields for it carries `key`."""

    def step(self) -> Iterable[Progress | Failure]:
        """Advance every running request once. Only called while `busy`."""

    def cancel(self, key: int) -> None:
        """Forget a request and free its slot; nothing more is yielded for it."""

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""

    def close(self) -> None:
        """Release the model."""
