# SPDX-License-Identifier: Apache-2.0
"""The requests that an engine runs before any client's.

A library compiles some of its kernels with the first request that needs them, and reads the
vocabulary with its first guide: vLLM's two workers on a CPU took 19 seconds over their first token,
on a busy machine more than the 30 after which an engine counts as hanging.
"""

import dataclasses
from typing import Any

from trellis.engine_host.engines.engine import Sampling

PROMPT = [0, 0]  # two tokens, then one a step: libraries compile for one token apart
TOGETHER = 3  # and for one sequence
GUIDE = 'root ::= "a"'


def first_requests(facts: dict[str, Any]) -> list[list[Sampling]]:
    """One kind of request after another, each with those that run together.

    `facts`: what the engine's limits are made of; nothing here is beyond them.
    """
    plain = Sampling(max_tokens=2, beam_width=facts.get("beam_width", 1))
    rounds = [[plain]]
    if plain.beam_width == 1:
        drawn = dataclasses.replace(plain, sample=True, top_k=2, top_p=0.9, log_probs=True)
        rounds += [[drawn], [drawn] * TOGETHER]
        if not facts.get("no_guides"):
            rounds.append([dataclasses.replace(plain, guide_type="ebnf_grammar", guide=GUIDE)])
    for name in facts.get("adapters", ())[:1]:
        rounds.append([dataclasses.replace(plain, lora_name=name)])
    return rounds
