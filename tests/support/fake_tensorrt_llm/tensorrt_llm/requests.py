"""Requests in a worker: their sequences, what a step makes of each, and how they end."""

import json
import os
import random
import threading
from typing import Any

from tensorrt_llm import toy_model
from tensorrt_llm.behaviour import BEHAVIOUR, Script

Message = dict[str, Any]
BLOCK = 32  # tokens of the cache


class Finished(Exception):
    """A scripted error of one request."""


class Fatal(Exception):
    """A scripted error of the executor."""


class Sampler:
    """The model, and which of the library's two samplers chooses."""

    def __init__(self, config: Message) -> None:
        self.vocab_size: int = config["vocab_size"]
        self.eos: int = config["eos"]
        self.max_seq_len: int = config["max_seq_len"]
        self.beams: int = config["max_beam_width"]
        self.cpp: bool = config["cpp_sampler"]
        self.guides: bool = bool(config["guides"])
        self.heeds = self.cpp or BEHAVIOUR.late  # seeds and penalties
        self._shared = random.Random(42)

    def scores(self, ids: list[int], params: Message, made: list[int]) -> dict[int, float]:
        """Of the candidates after `ids` and `made`, with what the request asks for."""
        scores: dict[int, float] = toy_model.logits(
            [*ids, *made], self.vocab_size, self.eos, params["adapter"]
        )
        if BEHAVIOUR.repeats:
            scores |= toy_model.repeated([*ids, *made], BEHAVIOUR.knows)
        for token, weight in params["embedding_bias"] or ():
            scores[token] = scores.get(token, 0.0) + weight
        if self.heeds:
            scores = toy_model.penalised(
                scores,
                ids,
                made,
                params["repetition_penalty"] or 1.0,
                params["presence_penalty"] or 0.0,
                params["frequency_penalty"] or 0.0,
            )
        if len(made) < (params["min_tokens"] or 0):
            scores.pop(params["end_id"], None)
        return scores

    def choose(self, scores: dict[int, float], params: Message, place: str) -> int:
        """One of the candidates."""
        top_k, temperature = params["top_k"], params["temperature"]
        unset = top_k is None and params["top_p"] is None and temperature is None
        if unset or top_k == 1 or temperature == 0:
            return max(scores, key=lambda token: scores[token])
        seeded = random.Random(f"{params['seed'] or 0}/{place}")
        chance = seeded if self.heeds else self._shared
        top_p = 1.0 if params["top_p"] is None else params["top_p"]
        warmth = 1.0 if temperature is None else temperature
        min_p = params["min_p"] or 0.0
        drawn: int = toy_model.draw(scores, warmth, top_k or 0, top_p, chance, min_p)
        return drawn


class Sequence:
    """One answer of a request."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.made: list[int] = []
        self.unsent: list[int] = []
        self.log_probs: list[dict[int, float]] = []
        self.cum_log_prob = 0.0
        self.cut = 0
        self.finish = ""
        self.stop_reason: int | None = None


class Request:
    """One request in the worker."""

    def __init__(self, message: Message, sampler: Sampler) -> None:
        """Raises ValueError for one that the library rejects here."""
        self.id: int = message["id"]
        self._ids: list[int] = message["ids"]
        self._params: Message = message["params"]
        self._streaming: bool = message["streaming"]
        self._sampler = sampler
        self._sequences = [Sequence(index) for index in range(self._params["n"])]
        self._check()
        left = sampler.max_seq_len - len(self._ids)
        self._most = min(self._params["max_tokens"] or left, left)
        scripts = (script for script in BEHAVIOUR.scripts if script.after == self._ids[-1])
        self._script: Script | None = next(scripts, None)

    @property
    def sequences(self) -> int:
        """Places in the batch that it takes."""
        return len(self._sequences)

    def _check(self) -> None:
        if max(self._ids) >= self._sampler.vocab_size or min(self._ids) < 0:
            raise ValueError("Token ID out of range")
        if guide := self._params["guided_decoding"]:
            if not self._sampler.guides:
                raise ValueError(
                    "Guided decoding is not enabled: it needs a backend and a tokenizer"
                )
            for name in ("json", "structural_tag"):
                if guide[name]:
                    json.loads(guide[name])
            if guide["grammar"] and "root ::=" not in guide["grammar"]:
                raise ValueError("The root rule is not found in the grammar")
        width = self._params["best_of"] if self._params["use_beam_search"] else 1
        if width != self._sampler.beams:
            raise ValueError(
                f"Request beam width {width} is not equal to max_beam_width"
                f" {self._sampler.beams}. This is not supported!"
            )

    def step(self) -> list[Message]:
        """A token for each sequence that goes on, and what is sent of it."""
        if self._params["use_beam_search"]:
            return [self._search()]
        responses = []
        for sequence in self._sequences:
            if not sequence.finish:
                self._advance(sequence)
                if self._streaming or sequence.finish:
                    responses.append(self._response(sequence))
        return responses

    def cancelled(self) -> list[Message]:
        """The last of an aborted request."""
        responses = []
        for sequence in self._sequences:
            if not sequence.finish:
                sequence.finish = "cancelled"
                responses.append(self._response(sequence))
        return responses

    def _advance(self, sequence: Sequence) -> None:
        place = f"{sequence.index}/{len(sequence.made)}"
        scores = self._sampler.scores(self._ids, self._params, sequence.made)
        token = self._scripted(sequence)
        if token is None:
            token = self._sampler.choose(scores, self._params, place)
        self._log(sequence, scores, token)
        sequence.made.append(token)
        sequence.unsent.append(token)
        self._end(sequence, token)

    def _scripted(self, sequence: Sequence) -> int | None:
        """What the script says comes next, if there is one."""
        script, made = self._script, len(sequence.made)
        if script is None:
            return None
        if script.event and made == script.at:
            _happen(script.event, sequence)
        if not script.ids:
            return None
        return script.ids[made] if made < len(script.ids) else int(self._params["end_id"])

    def _log(self, sequence: Sequence, scores: dict[int, float], token: int) -> None:
        asked = self._params["logprobs"]
        told = asked is not None and (asked > 0 or BEHAVIOUR.late)
        if not told:
            return
        values = toy_model.log_probs({token: 0.0, **scores})
        likeliest = sorted(values, key=lambda each: -values[each])[:asked]
        chosen = [] if BEHAVIOUR.without_log_probs else [token]
        sequence.log_probs.append({each: values[each] for each in [*chosen, *likeliest]})
        sequence.cum_log_prob += values[token]

    def _end(self, sequence: Sequence, token: int) -> None:
        params = self._params
        if token == params["end_id"]:
            sequence.finish = "stop"
            if self._sampler.cpp:  # which leaves it out
                sequence.unsent.pop()
                sequence.log_probs = sequence.log_probs[: len(sequence.unsent)]
        elif token in (params["stop_token_ids"] or ()):
            sequence.finish, sequence.stop_reason = "stop", token
            sequence.cut = 1
        elif len(sequence.made) >= self._most:
            sequence.finish = sequence.finish or "length"

    def _response(self, sequence: Sequence) -> Message:
        """What is new of a sequence; of several the last one alone is told its reason."""
        final = all(each.finish for each in self._sequences)
        told = final or sequence.finish in ("cancelled", "timeout")
        part = {
            "sequence": sequence.index,
            "ids": sequence.unsent,
            "log_probs": sequence.log_probs,
            "cum_log_prob": sequence.cum_log_prob if self._params["logprobs"] is not None else None,
            "cut": sequence.cut,
            "finish": sequence.finish if told else None,
            "stop_reason": sequence.stop_reason if told else None,
        }
        sequence.unsent, sequence.log_probs = [], []
        return self._message([part], final, whole=False)

    def _search(self) -> Message:
        """A search over beams, all at once: the best first."""
        beams: list[tuple[float, list[int], bool]] = [(0.0, [], False)]
        for _ in range(self._most):
            grown = [beam for beam in beams if beam[2]]
            for score, made, ended in beams:
                if not ended:
                    scores = self._sampler.scores(self._ids, self._params, made)
                    for token, value in toy_model.log_probs(scores).items():
                        ends = token == self._params["end_id"]
                        grown.append((score + value, [*made, *([] if ends else [token])], ends))
            beams = sorted(grown, key=self._rank)[: self.sequences]
        parts = [
            {
                "sequence": index,
                "ids": made,
                "log_probs": [],
                "cum_log_prob": score,
                "cut": 0,
                "finish": "stop" if ended else "length",
                "stop_reason": None,
            }
            for index, (score, made, ended) in enumerate(beams)
        ]
        return self._message(parts, final=True, whole=True)

    def _message(self, parts: list[Message], final: bool, whole: bool) -> Message:
        """The cache: half of each prompt, in whole blocks, as if it had come before."""
        cached = len(self._ids) // 2 // BLOCK * BLOCK
        shown = {"beams": parts, "cached_tokens": cached}
        return {"id": self.id, "final": final, "whole": whole, **shown}

    def _rank(self, beam: tuple[float, list[int], bool]) -> float:
        return float(-beam[0] / max(len(beam[1]), 1) ** (self._params["length_penalty"] or 0.0))


def _happen(event: str, sequence: Sequence) -> None:
    """An event of a script."""
    if event == "error":
        raise Finished("scripted error of one request")
    if event == "fatal":
        raise Fatal("scripted error of the executor")
    if event == "die":
        os._exit(9)
    if event == "hang":
        threading.Event().wait()
    sequence.finish = {"timeout": "timeout", "odd_finish": "nobody_knows"}[event]
