"""What the raw library takes to tokenize the prompts of a case: one thread, one after another."""

import statistics
import time
from pathlib import Path

from plan import Case
from texts import Texts

SECONDS = 1.0


def tokens_per_cpu_second(case: Case, texts: Texts, tokenizer_dir: Path) -> float | None:
    """Of Hugging Face's `tokenizers`; None where there is no file of it. The CPU's seconds, not the
    clock's, so that it can be held against a process on a machine that does other things, too."""
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
        begin = time.process_time()
        library.encode(prompt)
        rates.append(tokens / (time.process_time() - begin))
    return statistics.median(rates)
