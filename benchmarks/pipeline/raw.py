"""How fast the raw library tokenizes the prompts of a case: one thread, one prompt at a time."""

import statistics
import time
from pathlib import Path

from plan import Case
from texts import Texts

SECONDS = 1.0


def tokens_per_second(case: Case, texts: Texts, tokenizer_dir: Path) -> float | None:
    """Prompt tokens a second of Hugging Face's `tokenizers`; None where there is no file of it."""
    file = tokenizer_dir / "tokenizer.json"
    if not file.exists():
        return None
    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(file))
    prompt = texts.prompt(case.language, case.prompt_tokens)
    tokens = len(library.encode(prompt).ids)
    rates = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until or len(rates) < 3:
        begin = time.perf_counter()
        library.encode(prompt)
        rates.append(tokens / (time.perf_counter() - begin))
    return statistics.median(rates)
