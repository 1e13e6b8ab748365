"""A language model of nine candidates a step: which, and how likely, the last two ids decide."""

import hashlib
import math
import random
from collections.abc import Sequence

FIRST = 32  # below are special tokens
CANDIDATES = 8
LONGEST_RUN = 16  # of ids that are looked for, when what was said before is repeated
SURE = 40.0


def logits(ids: Sequence[int], vocab_size: int, eos: int, adapter: int = 0) -> dict[int, float]:
    """The candidates after these ids, the model's own end among them; an adapter changes all."""
    last = [*([adapter] if adapter else []), *(int(token) for token in ids[-2:])]
    digest = hashlib.blake2b(repr(last).encode(), digest_size=8)
    draw = random.Random(digest.hexdigest())
    scores = {draw.randrange(FIRST, vocab_size): draw.uniform(0, 6) for _ in range(CANDIDATES)}
    return scores | {eos: draw.uniform(-4, 6)}


def repeated(ids: Sequence[int], known: Sequence[Sequence[int]] = ()) -> dict[int, float]:
    """The id that followed these last ones before, as long a run of them as there is, and how sure.

    `known`: other texts that they are looked for in.

    >>> repeated([5, 6, 7, 5, 6])
    {7: 40.0}
    >>> repeated([8, 5, 6], [[8, 5, 6, 9]])
    {9: 40.0}
    """
    found, longest = {}, 1
    for text in (ids, *known):
        for at in range(len(text) - 1, 1, -1):  # text[at] may come next
            run = 0
            while run < min(at, len(ids), LONGEST_RUN) and text[at - 1 - run] == ids[-1 - run]:
                run += 1
            if run > longest:
                found, longest = {int(text[at]): SURE}, run
            if run == LONGEST_RUN:
                return found
    return found


def log_probs(scores: dict[int, float]) -> dict[int, float]:
    """Of all candidates; what is not among them has none."""
    best = max(scores.values())
    total = best + math.log(sum(math.exp(score - best) for score in scores.values()))
    return {token: score - total for token, score in scores.items()}


def greedy(
    prompt: Sequence[int],
    count: int,
    vocab_size: int,
    eos: int,
    min_tokens: int = 1,
    adapter: int = 0,
) -> list[int]:
    """The likeliest ids, up to the model's own end, which is left out."""
    made: list[int] = []
    while len(made) < count:
        scores = logits([*prompt, *made], vocab_size, eos, adapter)
        if len(made) < min_tokens:
            del scores[eos]
        best = max(scores, key=lambda token: scores[token])
        if best == eos:
            break
        made.append(best)
    return made


def penalised(
    scores: dict[int, float],
    before: Sequence[int],
    made: Sequence[int],
    repetition: float,
    presence: float,
    frequency: float,
) -> dict[int, float]:
    """Scores after the three penalties: the first on all ids, the others on those made."""
    changed = dict(scores)
    for token, score in scores.items():
        if token in before or token in made:
            changed[token] = score / repetition if score > 0 else score * repetition
        if token in made:
            changed[token] -= presence + frequency * made.count(token)
    return changed


def draw(
    scores: dict[int, float],
    temperature: float,
    top_k: int,
    top_p: float,
    random_: random.Random,
    min_p: float = 0.0,
) -> int:
    """An id by chance, of the likeliest."""
    order = sorted(scores, key=lambda token: -scores[token])
    kept = order[: top_k or len(order)]
    best = scores[order[0]]  # taken off all: a low temperature would make them too large
    weights = [math.exp((scores[token] - best) / temperature) for token in kept]
    total, so_far, count = sum(weights), 0.0, 0
    while count < len(kept) and so_far < top_p * total:
        so_far += weights[count]
        count += 1
    while count and weights[count - 1] < min_p * weights[0]:
        count -= 1
    count = max(count, 1)
    return random_.choices(kept[:count], weights[:count])[0]
