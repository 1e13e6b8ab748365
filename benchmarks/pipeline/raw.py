"""What the raw library takes to tokenize the prompts of a case.

One call for each, on as many threads as `preprocessing` would use, since cores that work side by
side share caches and memory: a CPU second beside another is worth less than one alone. The prompts
are those that the pipeline is asked, in turn.
"""

import functools
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench_requests import prompts
from plan import Case
from texts import Texts

SECONDS = 1.0


@functools.cache
def _opened(file: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(file))


def tokens_per_cpu_second(case: Case, texts: Texts, tokenizer_dir: Path) -> float | None:
    """Of Hugging Face's `tokenizers`; None where there is no file of it. The CPU's seconds, not the
    clock's, so that it can be held against a process on a machine that does other things, too."""
    file = tokenizer_dir / "tokenizer.json"
    if not file.exists():
        return None
    library = _opened(file)

    def encode(prompt: str) -> int:
        return len(library.encode_batch_fast([prompt])[0].ids)  # outside Python's lock

    asked = prompts(case, texts)
    threads = min(case.streams, len(os.sched_getaffinity(0)))
    rates: list[float] = []
    until = time.perf_counter() + SECONDS
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() < until or len(rates) < 3:
            begin = time.process_time()
            tokens = sum(pool.map(encode, asked))
            rates.append(tokens / (time.process_time() - begin))
    return statistics.median(rates)
