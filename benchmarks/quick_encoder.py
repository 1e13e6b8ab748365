# SPDX-License-Identifier: Apache-2.0
"""What a prompt's ids cost with fastokens and with tokenizers, and what it costs to open it.

    .venv/bin/python benchmarks/quick_encoder.py              tables
    .venv/bin/python benchmarks/quick_encoder.py --rounds 25

`encode` is a prompt of 40,000 characters, English or of a dozen scripts and code. `body to add` is
a prompt of 30,000 tokens from the body of /v1/completions to the call of the engine's `add`: JSON,
ids, the engine's JSON, and what the engine host reads of it, without sockets and the checks of
other fields. CPU
milliseconds of the process, all threads; every round has texts that no round had before, both ways
take turns, and the median counts. `open` is of a fresh process each: until the tokenizer is loaded,
until fastokens encodes, the resident memory then with and without it, and the most there was.
"""

import argparse
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

VOCABULARIES = ("gpt2", "smollm2", "llama3", "llama4", "qwen", "qwen36", "tekken")
CHARACTERS, TOKENS = 40_000, 30_000
CONTEXT = 100_000  # tokens, more than any prompt here has
WORDS = (
    "the quick brown fox jumps over lazy dogs and it's 3.14 times as big as before they said"
    " people would have been working through several documents about international weather"
)
Ids = list[int]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each measurement")
    parser.add_argument("--only", default=",".join(VOCABULARIES), help="vocabularies")
    parser.add_argument("--open", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print(json.dumps(open_here(*arguments.open)))
        return
    support = importlib.import_module("support.tokenizer_folders")
    names = arguments.only.split(",")
    with tempfile.TemporaryDirectory() as root:
        folders = support.Folders(Path(root))
        print("| vocabulary | text | tokenizers | fastokens | ratio |\n|---|---|---|---|---|")
        for name in names:
            print("\n".join(encoded(name, support.TYPE_OF[name], folders, arguments.rounds)))
        print("\n| vocabulary | body to add: tokenizers | fastokens | ratio |\n|---|---|---|---|")
        for name in names:
            print(walked(name, support.TYPE_OF[name], folders, Path(root), arguments.rounds))
        print(
            "\n| vocabulary | loaded | fastokens encodes | memory without | with | at most |"
            "\n|---|---|---|---|---|---|"
        )
        for name in names:
            print(opened(name, support.TYPE_OF[name], folders[name]))


def english(seed: int) -> str:
    """Running text of CHARACTERS characters, with names that no other seed has."""
    rng = random.Random(seed)
    words = WORDS.split()
    made: list[str] = []
    while sum(map(len, made)) + len(made) < CHARACTERS:
        made += rng.choices(words, k=40)
        made.append("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=8)).title() + ".")
    return " ".join(made)[:CHARACTERS]


def many(seed: int) -> str:
    """Text in a dozen scripts, and code."""
    corpus = importlib.import_module("support.tokenizer_corpus")
    return str(corpus.long_text(CHARACTERS, seed=seed))


def both(kind: str, folder: Path) -> dict[str, Any]:
    """The tokenizer twice: encoding with `tokenizers`, and with fastokens."""
    from trellis.tokenizers import load

    made: dict[str, Any] = {"tokenizers": load(kind, folder), "fastokens": load(kind, folder)}
    for way, tokenizer in made.items():
        prepare(tokenizer, way)
    return made


def prepare(tokenizer: Any, way: str) -> None:
    """Have a tokenizer encode with fastokens, or never."""
    os.environ["TRELLIS_ENCODER"] = way
    tokenizer.prepare()
    assert tokenizer._encoder.wait() is (way == "fastokens")


def race(calls: dict[str, Callable[[Any], Any]], texts: Iterator[Any], rounds: int) -> list[float]:
    """Median CPU milliseconds of each call, all given the same; one round first to warm up."""
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        text = next(texts)
        made = []
        for way, call in calls.items():
            start = time.process_time()
            made.append(call(text))
            if number:
                taken[way].append((time.process_time() - start) * 1e3)
        assert all(each == made[0] for each in made), "the ids differ"
    return [statistics.median(taken[way]) for way in calls]


def encoded(name: str, kind: str, folders: Any, rounds: int) -> Iterator[str]:
    """Two rows: English, and many scripts."""
    ways = both(kind, folders[name])
    calls = {way: tokenizer.encode_bare for way, tokenizer in ways.items()}
    for text, make in (("English", english), ("many scripts, code", many)):
        slow, quick = race(calls, (make(seed) for seed in range(10**6)), rounds)
        yield f"| {name} | {text} | {slow:.1f} ms | {quick:.2f} ms | {slow / quick:.0f} |"


def walked(name: str, kind: str, folders: Any, root: Path, rounds: int) -> str:
    """A row: from the body to the engine's `add`."""
    walks = {}
    for way in ("tokenizers", "fastokens"):
        walks[way] = Walk(kind, folders[name], root / f"{name}-{way}", way)
    tokenizer = walks["fastokens"].tokenizer
    bodies = (body_of(tokenizer, seed) for seed in range(10**6))
    slow, quick = race({way: walk.ids for way, walk in walks.items()}, bodies, rounds)
    return f"| {name} | {slow:.1f} ms | {quick:.1f} ms | {slow / quick:.1f} |"


def body_of(tokenizer: Any, seed: int) -> bytes:
    """A body of /v1/completions whose prompt has about TOKENS tokens."""
    text = ""
    while (have := len(tokenizer.encode_bare(text))) < TOKENS:
        more = english(seed * 10 + len(text) % 7)
        text += more[: round((TOKENS - have) * 4.5) + 10]
    return json.dumps({"prompt": text, "max_tokens": 16}).encode()


class Walk:
    """A repository of a Python engine, its gateway's route and its engine host's reader."""

    def __init__(self, kind: str, folder: Path, root: Path, way: str) -> None:
        from support.shown_config import config_of, model_of
        from trellis.engine_files.engine_folder import EngineFolder
        from trellis.engine_host.request_reader import RequestReader
        from trellis.engine_host.step_tensors import StepTensors
        from trellis.pipeline.model_settings import ModelSettings
        from trellis.repository.assemble import Plan, assemble
        from trellis.tokenizers import load

        os.environ["TRELLIS_ENCODER"] = way
        (root / "out").mkdir(parents=True)
        size = load(kind, folder).vocab_size
        engine = EngineFolder(root / "out", "openvino", (), max_seq_len=CONTEXT, vocab_size=size)
        repository = root / "repository"
        assemble(Plan(engine, kind, folder), repository)
        route = model_of(repository).route
        assert route is not None
        assert route.requests is not None
        self.requests = route.requests
        self.tokenizer: Any = self.requests.preprocessor.tokenizer
        prepare(self.tokenizer, way)
        config = config_of(repository, "tensorrt_llm")
        told = {
            "model_config": json.dumps(config),
            "model_name": "tensorrt_llm",
            "model_repository": str(repository / "tensorrt_llm"),
            "model_version": "1",
        }
        self.reader = RequestReader(ModelSettings.read(told))
        self.tensors = StepTensors.of(told["model_config"])
        self.engine = cast(Any, SimpleNamespace(refuse=lambda sampling: None))

    def ids(self, body: bytes) -> Ids:
        """The ids that `add` is called with."""
        from trellis.engine_host.step_inputs import read_step_inputs

        asked = json.loads(body)
        found = self.requests.encode(asked["prompt"], bare=False)
        values = {"text_input": "", "max_tokens": asked["max_tokens"]}
        written = self.requests.write(values, "1f" * 16, found, {})
        sent = json.loads(written.body)
        read = self.reader.read(self.tensors.read(sent), self.engine, read_step_inputs(sent))
        return [int(token) for token in read.prompts[0]]


def opened(name: str, kind: str, folder: Path) -> str:
    """A row: time and memory, in fresh processes."""
    numbers = {}
    for way in ("tokenizers", "fastokens"):
        command = [sys.executable, __file__, "--open", kind, str(folder), way]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        numbers[way] = json.loads(done.stdout.splitlines()[-1])
    slow, quick = numbers["tokenizers"], numbers["fastokens"]
    return (
        f"| {name} | {slow['loaded']:.2f} s | {quick['encodes']:.2f} s | {slow['memory']:.0f} MB"
        f" | {quick['memory']:.0f} MB | {quick['most']:.0f} MB |"
    )


def open_here(kind: str, folder: str, way: str) -> dict[str, float]:
    """Seconds from the start and megabytes in this process."""
    start = time.perf_counter()
    from trellis.tokenizers import load

    tokenizer = load(kind, folder)
    loaded = time.perf_counter() - start
    prepare(tokenizer, way)
    encodes = time.perf_counter() - start
    tokenizer.encode(english(1))
    return {
        "loaded": loaded,
        "encodes": encodes,
        "memory": status("VmRSS"),
        "most": status("VmHWM"),
    }


def status(name: str) -> float:
    """A figure of this process's status, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


if __name__ == "__main__":
    main()
