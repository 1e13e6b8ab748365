"""How fast the tokenizers are, beside the raw libraries and transformers, and what they weigh.

    .venv/bin/python benchmarks/tokenizer_speed.py            tables
    .venv/bin/python benchmarks/tokenizer_speed.py --json     the same numbers for a program

Everything is measured in one run on one machine: each contender takes its turn in every round,
and the median of the rounds counts. Load time and memory are of a fresh process each. The
vocabularies are real ones, from the packages that the tests use.
"""

import argparse
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

Numbers = dict[str, float]
GOALS = {"encode": 1.2, "transformers": 5.0, "DecodeStream": 1.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each measurement")
    parser.add_argument("--weigh", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.weigh:
        print(json.dumps(weigh_here(*arguments.weigh)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), arguments.rounds)
    if arguments.json:
        print(json.dumps(results, indent=1))
    else:
        show(results)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All numbers: results[kind of measurement][tokenizer][contender]."""
    folders = importlib.import_module("support.tokenizer_folders").Folders(folder)
    results: dict[str, Any] = {"encode_long": {}, "encode_batch": {}, "stream": {}, "weight": {}}
    for name in ("gpt2", "llama", "llama_json"):
        contenders = Contenders(name, folders, rounds)
        results["encode_long"][name] = contenders.encode_long(rounds)
        results["encode_batch"][name] = contenders.encode_batch(rounds)
        results["stream"][name] = contenders.stream(rounds)
    for kind, source, rival in WEIGHED:
        results["weight"][f"{kind} ({source})"] = weigh(kind, folders[source], folders[rival])
    return results


WEIGHED = [
    ("gpt2", "gpt2", "gpt2_json"),
    ("gpt2", "gpt2_json", "gpt2_json"),
    ("llama", "llama", "llama_json"),
    ("llama", "llama_json", "llama_json"),
    ("llama3", "llama3", "llama3_json"),
    ("mistral", "mistral3", "mistral3_json"),
    ("mistral", "tekken", "tekken_json"),
    ("qwen", "gpt2", "gpt2_json"),
    ("t5", "t5", "t5_json"),
    ("auto", "gpt2_json", "gpt2_json"),
]


class Contenders:
    """One vocabulary in this package, in the raw libraries and in transformers."""

    def __init__(self, name: str, folders: Any, rounds: int) -> None:
        import sentencepiece
        import tokenizers
        from transformers import AutoTokenizer

        from trellis.tokenizers import load

        corpus = importlib.import_module("support.tokenizer_corpus")
        kind = name.removesuffix("_json")
        source = folders[f"{kind}_json"]
        self.ours: Any = load(kind, folders[name])
        self.ours.prepare()
        getattr(
            getattr(self.ours, "_encoder", None), "wait", bool
        )()  # for fastokens, where it has the same ids
        self.raw = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
        self.transformers = AutoTokenizer.from_pretrained(source)
        self.sentencepiece: Any = None
        if name == "llama":  # from tokenizer.model, whose own library it is
            path = str(folders["llama"] / "tokenizer.model")
            self.sentencepiece = sentencepiece.SentencePieceProcessor(model_file=path)
        # One for each round: fastokens knows a text's words when it comes again.
        self.longs = [corpus.long_text(40_000, seed=7 + index) for index in range(rounds + 1)]
        self.batch = [corpus.long_text(200, seed=seed) for seed in range(64)]

    def raw_fast(self, texts: list[str]) -> list[list[int]]:
        """The library's quickest call, which keeps no offsets."""
        return [e.ids for e in self.raw.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_long(self, rounds: int) -> Numbers:
        """Seconds to encode one prompt of 40,000 characters."""
        texts = self.longs
        calls: dict[str, Callable[[int], Any]] = {
            "ours": lambda index: self.ours.encode(texts[index]),
            "tokenizers": lambda index: self.raw.encode(texts[index], add_special_tokens=False).ids,
            "tokenizers, fast": lambda index: self.raw_fast([texts[index]]),
            "transformers": lambda index: self.transformers.encode(texts[index]),
        }
        if self.sentencepiece:
            calls["sentencepiece"] = lambda index: self.sentencepiece.encode(texts[index])
        return race(calls, rounds)

    def encode_batch(self, rounds: int) -> Numbers:
        """Seconds to encode 64 prompts of 200 characters."""
        texts = self.batch

        def raw(_: int) -> list[list[int]]:
            return [e.ids for e in self.raw.encode_batch(texts, add_special_tokens=False)]

        calls: dict[str, Callable[[int], Any]] = {
            "ours": lambda _: self.ours.encode_batch(texts),
            "tokenizers": raw,
            "tokenizers, fast": lambda _: self.raw_fast(texts),
            "transformers": lambda _: self.transformers(texts)["input_ids"],
        }
        if self.sentencepiece:
            calls["sentencepiece"] = lambda _: self.sentencepiece.encode(texts)
        return race(calls, rounds)

    def stream(self, rounds: int) -> Numbers:
        """Seconds a token to stream 500 tokens, one by one."""
        from tokenizers.decoders import DecodeStream

        ids = self.ours.encode(self.longs[0])[:500]
        decode = self.transformers.decode

        def ours(_: int) -> None:
            decoder = self.ours.stream_decoder()
            for token in ids:
                decoder.push([token])

        def stream(_: int) -> None:
            decoder = DecodeStream(skip_special_tokens=True)
            for token in ids:
                decoder.step(self.raw, token)

        def growing(_: int) -> None:
            for end in range(1, len(ids) + 1):
                decode(ids[:end], skip_special_tokens=True)

        calls = {"ours": ours, "DecodeStream": stream, "transformers": growing}
        return {name: seconds / len(ids) for name, seconds in race(calls, rounds).items()}


def race(calls: Mapping[str, Callable[[int], Any]], rounds: int) -> Numbers:
    """The median seconds of each call, all taking turns; one round first to warm up.

    A call is given the number of the round.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            gc.collect()
            start = time.perf_counter()
            call(index)
            if index:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def weigh(kind: str, folder: Path, rival: Path) -> dict[str, Numbers]:
    """Load time and resident memory in fresh processes: ours, and AutoTokenizer on its files."""
    weighed = {}
    for contender, source in (("ours", folder), ("AutoTokenizer", rival)):
        done = subprocess.run(
            [sys.executable, __file__, "--weigh", contender, kind, str(source)],
            capture_output=True,
            text=True,
            check=True,
        )
        weighed[contender] = json.loads(done.stdout.splitlines()[-1])
    return weighed


def weigh_here(contender: str, kind: str, folder: str) -> Numbers:
    """Seconds and MB that importing and loading cost this process."""
    before = resident()
    start = time.perf_counter()
    if contender == "ours":
        from trellis.tokenizers import load

        tokenizer: Any = load(kind, folder)
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.encode("Hello world")
    return {"seconds": time.perf_counter() - start, "megabytes": resident() - before}


def resident() -> float:
    """This process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    from rich.console import Console

    console = Console()
    console.print(speed_table(results))
    console.print(weight_table(results["weight"]))


def speed_table(results: dict[str, Any]) -> Any:
    """Times, how many times as long the others take, and whether the goals are met."""
    from rich.table import Table

    table = Table(title="Speed (median of rounds taken in turns)")
    for column in ("measurement", "type", "ours", "others: time, and how it compares", "goal"):
        table.add_column(column, no_wrap=True)
    for measurement, unit, scale in (
        ("encode_long", "ms", 1e3),
        ("encode_batch", "ms", 1e3),
        ("stream", "us/token", 1e6),
    ):
        for name, numbers in results[measurement].items():
            ours = numbers["ours"]
            others = [
                f"{other} {seconds * scale:.2f} ({seconds / ours:.2f}x ours)"
                for other, seconds in numbers.items()
                if other != "ours"
            ]
            goal = "met" if goals_met(measurement, numbers) else "MISSED"
            table.add_row(measurement, name, f"{ours * scale:.2f} {unit}", "\n".join(others), goal)
    return table


def goals_met(measurement: str, numbers: Numbers) -> bool:
    """Encode within 1.2x of the raw library of its file; streams faster than both others."""
    ours = numbers["ours"]
    if measurement != "stream":
        raw = numbers.get("sentencepiece", numbers["tokenizers, fast"])
        return ours <= GOALS["encode"] * raw
    return all(numbers[other] >= GOALS[other] * ours for other in ("transformers", "DecodeStream"))


def weight_table(weights: dict[str, dict[str, Numbers]]) -> Any:
    """Import and load, in a fresh process each."""
    from rich.table import Table

    table = Table(title="Weight: import and load, in a fresh process")
    for column in ("type (folder)", "ours", "AutoTokenizer, same vocabulary as tokenizer.json"):
        table.add_column(column)
    for name, weight in weights.items():
        cells = [f"{w['seconds']:.2f} s  {w['megabytes']:.0f} MB" for w in weight.values()]
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()
