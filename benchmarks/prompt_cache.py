# SPDX-License-Identifier: Apache-2.0
"""What the second turn of a long chat costs to encode, with kept beginnings and without.

    .venv/bin/python benchmarks/prompt_cache.py                     a table
    .venv/bin/python benchmarks/prompt_cache.py --tokens 100000     a longer history

The history is a chat in ChatML or in the tokenizer's like of it, of about so many tokens; the
second turn adds an answer and a question. Both ways take turns, and the median of the rounds
counts. `ratio` is whole / beginning kept. `new part alone` is what the tokenizer takes for the
text that the second turn adds, the least that it could cost. `first turn` is the time for a
history that is new, over the tokenizer's own. Vocabularies are real ones, from the packages that
the tests use.
"""

import argparse
import importlib
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trellis.tokenizers.prefix_cache import PrefixEncoder

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

VOCABULARIES = {
    "smollm2": "<|im_end|>\n",
    "llama3": "<|eot_id|>",
    "qwen36": "<|im_end|>\n",
    "mistral3": "[/INST]",
    "llama": "</s>",
}
"""Folder -> what is behind each message."""
MAX_BYTES = 64 << 20
WORDS = "the quick brown fox jumps over a lazy dog and it's 3.14 times as big as before, they said"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tokens", type=int, default=30_000, help="tokens of history")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each measurement")
    arguments = parser.parse_args()
    folders = importlib.import_module("support.tokenizer_folders")
    print(
        "| vocabulary | tokens of history | whole | beginning kept | ratio | new part alone |"
        " first turn |"
    )
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        loaded = folders.Loaded(folders.Folders(Path(folder)))
        for name, end in VOCABULARIES.items():
            print(
                row(name, Chat(loaded[name], end, arguments.tokens), arguments.rounds), flush=True
            )


class Chat:
    """A chat of messages that each end with a special token, and its tokenizer."""

    def __init__(self, tokenizer: Any, end: str, tokens: int) -> None:
        """tokens: how many its history has, about."""
        self.tokenizer = tokenizer
        self.end = end
        self.history = ""
        self.size = 0
        while self.size < tokens:
            self.history += self.turn(len(self.history))
            self.size = len(tokenizer.encode_bare(self.history))

    def turn(self, seed: int) -> str:
        """An answer and a question, of English words; another one for each seed."""
        rng = random.Random(seed)
        said = " ".join(rng.choices(WORDS.split(), k=400))
        half = len(said) // 2
        return f"{seed} {said[:half]}{self.end}{seed} {said[half:]}{self.end}"


def row(name: str, chat: Chat, rounds: int) -> str:
    """A row of the table: medians of the rounds, all ways taking turns in each."""
    taken: dict[str, list[float]] = defaultdict(list)
    encode = chat.tokenizer.encode_bare
    for number in range(rounds):
        cached = PrefixEncoder(chat.tokenizer, MAX_BYTES)
        new = chat.turn(-1 - number)
        ways: dict[str, tuple[Callable[[str], list[int]], str]] = {
            "history": (encode, chat.history),
            "history, kept": (cached.encode_bare, chat.history),
            "whole": (encode, chat.history + new),
            "kept": (cached.encode_bare, chat.history + new),
            "new": (encode, new),
        }
        ids = {}
        for way, (call, text) in ways.items():
            start = time.perf_counter()
            ids[way] = call(text)
            taken[way].append((time.perf_counter() - start) * 1e3)
        assert ids["kept"] == ids["whole"], "the ids are not the tokenizer's"
    ms = {way: statistics.median(times) for way, times in taken.items()}
    return (
        f"| {name} | {chat.size:,} | {ms['whole']:.1f} ms | {ms['kept']:.2f} ms"
        f" | {ms['whole'] / ms['kept']:.0f} | {ms['new']:.2f} ms"
        f" | {ms['history, kept'] / ms['history']:.2f} |"
    )


if __name__ == "__main__":
    main()
