# SPDX-License-Identifier: Apache-2.0
"""Requests with JSON schemas or grammars at temperature 1: are all answers valid, at what cost?

    pip download --no-deps --no-binary :all: jsonschema==4.26.0    # its source has the test suite
    tar xzf jsonschema-4.26.0.tar.gz
    python benchmarks/structured.py smollm2-out smollm2-tokenizer jsonschema-4.26.0/json/tests \
        --requests 10000
    python benchmarks/structured.py smollm2-out smollm2-tokenizer --grammars 400 --requests 12800

The schemas are those of the JSON Schema Test Suite, each under the validator of its draft. An
engine as a server runs it answers them, 16 at a time; with `--bare N` it takes turns with the
library alone, N rounds, which reads the same schemas with its own reader. Grammars are made up:
alternatives, optional and repeated parts and rules of few letters, which often begin alike.
"""

import argparse
import itertools
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np

from trellis.engine_host.engines.engine import (
    TOKENIZER_SAMPLE,
    EngineSettings,
    Failure,
    Sampling,
)
from trellis.engine_host.engines.engine_process import EngineProcess
from trellis.errors import RequestError
from trellis.guides.translate import Guide, translate
from trellis.tokenizers import Tokenizer, load

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support.grammar_walks import Walks

DRAFTS: dict[str, Any] = {
    "draft2020-12": jsonschema.Draft202012Validator,
    "draft2019-09": jsonschema.Draft201909Validator,
    "draft7": jsonschema.Draft7Validator,
    "draft6": jsonschema.Draft6Validator,
    "draft4": jsonschema.Draft4Validator,
}
PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPT_CHARACTERS = 400
LETTERS = "abc"  # of made-up grammars: few, so that much begins alike
CONTEXT = 2048


class Case(NamedTuple):
    """One schema or grammar that is held."""

    asked: Any
    prompt: str
    guide: Guide
    is_valid: Callable[[str], bool]


@dataclass
class Outcome:
    """What came of all requests."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def read_cases(folder: Path) -> tuple[list[Case], Counter[str]]:
    """The schemas of a test suite: those held, each once, and how many are rejected by what."""
    held: dict[str, Case] = {}
    rejected: Counter[str] = Counter()
    for draft, validator in DRAFTS.items():
        for file in sorted((folder / draft).rglob("*.json")):
            for each in json.loads(file.read_text()):
                schema = each["schema"]
                try:
                    guide = translate("json_schema", json.dumps(schema))
                except RequestError as error:
                    rejected[reason(str(error))] += 1
                    continue
                held.setdefault(draft + guide.text, schema_case(schema, guide, validator))
    return list(held.values()), rejected


def schema_case(schema: Any, guide: Guide, validator: Any) -> Case:
    """A schema whose documents are judged by the validator of its draft."""
    checked = validator(schema, format_checker=validator.FORMAT_CHECKER)

    def is_valid(text: str) -> bool:
        try:
            return bool(checked.is_valid(json.loads(text)))
        except ValueError:
            return False

    return Case(schema, f"Write JSON of this schema: {json.dumps(schema)}", guide, is_valid)


def make_cases(count: int, chance: random.Random) -> list[Case]:
    """Grammars that are made up, those left out that have no text."""
    found = []
    for _ in range(count):
        names = [f"r{number}" for number in range(chance.randint(0, 3))]
        parts = " ".join(made_up(depth, names, chance) for depth in (3, 2, 2))
        lines = [f"root ::= {parts}"]
        for at, name in enumerate(names):
            lines.append(f"{name} ::= {made_up(2, names[at + 1 :], chance)}")
        text = "\n".join(lines)
        try:
            guide = translate("ebnf_grammar", text)
        except RequestError:
            continue
        found.append(Case(text, "Write letters.", guide, Walks(text).takes))
    return found


def made_up(depth: int, names: list[str], chance: random.Random) -> str:
    """An expression of EBNF, with rules of these names in it."""
    kind = chance.random() if depth else 0.0
    if kind < 0.3:
        if names and chance.random() < 0.2:
            return chance.choice(names)
        return f'"{"".join(chance.choices(LETTERS, k=chance.randint(1, 3)))}"'
    if kind < 0.8:
        between = " | " if kind < 0.55 else " "
        parts = (made_up(depth - 1, names, chance) for _ in range(chance.randint(2, 3)))
        return f"({between.join(parts)})"
    times = chance.choice(["?", "?", "?", "*", "{0,3}", "{1,2}"])
    return f"({made_up(depth - 1, names, chance)}){times}"


def reason(message: str) -> str:
    """What a schema is rejected by: the keyword at the end of its place."""
    place, _, why = message.partition(": ")[2].partition(": ")
    name = re.split(r"[.\]]", place)[-1]
    why = re.sub("'.*'", "...", why)  # what a client wrote
    return f"{name}: {why}"[:70] if why else place[:70]


class Engine:
    """An engine as a server runs it, in a process of its own."""

    def __init__(self, kind: str, engine: Path, tokenizer: Path, streams: int) -> None:
        self.tokenizer: Tokenizer = load("gpt2", tokenizer)
        self._streams = streams
        self._process = EngineProcess(
            kind,
            EngineSettings(
                engine,
                max_batch_size=streams,
                max_seq_len=CONTEXT,
                max_tokens_in_paged_kv_cache=streams * CONTEXT,
                tokenizer=tokenizer,
                tokenizer_sample=tuple(self.tokenizer.encode(TOKENIZER_SAMPLE)),
            ),
        )

    def run(self, cases: Iterator[Case], count: int, max_tokens: int, seed: int) -> Outcome:
        """Ask `count` requests, as many at a time as there are streams."""
        outcome, begun, left = Outcome(), time.monotonic(), iter(range(count))
        running: dict[int, tuple[Case, list[int]]] = {}
        for key in itertools.islice(left, self._streams):
            running[key] = self._ask(key, next(cases), max_tokens, seed)
        while running:
            for event in self._process.step():
                case, ids = running[event.key]
                if isinstance(event, Failure):
                    outcome.ends[event.message[:100]] += 1
                else:
                    outcome.tokens += len(event.ids)
                    ids += event.ids
                    if not event.finish:
                        continue
                    self._judge(outcome, case, ids, event.finish)
                del running[event.key]
                key = next(left, -1)
                if key >= 0:
                    running[key] = self._ask(key, next(cases), max_tokens, seed)
        outcome.seconds = time.monotonic() - begun
        return outcome

    def _ask(self, key: int, case: Case, max_tokens: int, seed: int) -> tuple[Case, list[int]]:
        sampling = Sampling(
            max_tokens=max_tokens,
            end_id=self.tokenizer.eos_id or 0,
            temperature=1.0,
            sample=True,
            seed=seed + key,
            guide_type=case.guide.kind,
            guide=case.guide.text,
        )
        self._process.refuse(sampling)
        self._process.add(key, np.array(prompt(self.tokenizer, case)), sampling)
        return case, []

    def _judge(self, outcome: Outcome, case: Case, ids: list[int], finish: str) -> None:
        if finish != "stop":
            outcome.ends["cut by max_tokens"] += 1
            return
        text = self.tokenizer.decode(ids)
        fine = case.is_valid(text)
        outcome.ends["complete" if fine else "INVALID"] += 1
        if not fine:
            outcome.wrong.append(f"{json.dumps(case.asked)[:300]}: {text[:300]!r}")

    def close(self) -> None:
        self._process.close()


class Bare:
    """OpenVINO's pipeline alone, with its own reader of schemas."""

    def __init__(self, engine: Path, tokenizer: Path, streams: int) -> None:
        import openvino_genai as genai

        from trellis.engine_host.engines.openvino_pipeline import device_properties

        self._genai, self._streams = genai, streams
        self._tokenizer = load("gpt2", tokenizer)
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs, scheduler.num_kv_blocks = streams, streams * CONTEXT // 32
        scheduler.enable_prefix_caching = True
        self._pipeline = genai.ContinuousBatchingPipeline(
            str(next(engine.glob("*.gguf"))), scheduler, "CPU", device_properties()
        )

    def run(self, cases: Iterator[Case], count: int, max_tokens: int, seed: int) -> Outcome:
        """The same requests, none of which is judged."""
        outcome, begun, left = Outcome(), time.monotonic(), iter(range(count))
        handles = [self._ask(key, next(cases), max_tokens, seed) for key in
                   itertools.islice(left, self._streams)]  # fmt: skip
        while handles:
            self._pipeline.step()
            going = []
            for handle in handles:
                while handle.can_read():
                    for output in handle.read().values():
                        outcome.tokens += len(output.generated_ids)
                if handle.get_status() == self._genai.GenerationStatus.RUNNING:
                    going.append(handle)
                elif (key := next(left, -1)) >= 0:
                    going.append(self._ask(key, next(cases), max_tokens, seed))
            handles = going
        outcome.seconds = time.monotonic() - begun
        return outcome

    def _ask(self, key: int, case: Case, max_tokens: int, seed: int) -> Any:
        import openvino

        config = self._genai.GenerationConfig()
        config.max_new_tokens, config.do_sample, config.rng_seed = max_tokens, True, seed + key
        config.eos_token_id = self._tokenizer.eos_id
        config.stop_token_ids = {self._tokenizer.eos_id}
        config.structured_output_config = self._genai.StructuredOutputConfig(
            json_schema=json.dumps(case.asked)
        )
        ids = np.array([prompt(self._tokenizer, case)], np.int64)
        return self._pipeline.add_request(key, openvino.Tensor(ids), config)


def prompt(tokenizer: Tokenizer, case: Case) -> list[int]:
    """The ids of what is asked."""
    return tokenizer.encode(PROMPT.format(case.prompt[:PROMPT_CHARACTERS]))


def shuffled(cases: list[Case], seed: int) -> Iterator[Case]:
    """All in an order of chance, again and again."""
    chance = random.Random(seed)
    while True:
        yield from chance.sample(cases, len(cases))


def compare(engine: Engine, asked: argparse.Namespace, cases: list[Case]) -> None:
    """Turns of the engine and of the library alone, the first ones for what each compiles."""
    bare = Bare(asked.engine, asked.tokenizer, asked.streams)
    # What the library's reader takes, too, and answers of some length.
    usual = [case for case in cases if '"type"' in json.dumps(case.asked)][:40]
    speeds: dict[str, list[float]] = {"ours": [], "the library alone": []}
    for turn in range(asked.bare + 1):
        for name, each in (("ours", engine), ("the library alone", bare)):
            made = each.run(shuffled(usual, 1), 4 * asked.streams, asked.max_tokens, turn)
            if turn:
                speeds[name].append(made.speed)
    for name, values in speeds.items():
        print(f"{name}: {', '.join(f'{value:.0f}' for value in values)} tokens/s")
    totals = [sum(values) for values in speeds.values()]
    print(f"ours / the library alone: {totals[0] / totals[1]:.3f}")


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path, help="the engine's folder")
    parser.add_argument("tokenizer", type=Path, help="the tokenizer's folder, of type gpt2")
    parser.add_argument("schemas", type=Path, nargs="?", help="json/tests of jsonschema's source")
    parser.add_argument("--grammars", type=int, metavar="N", help="N made-up grammars in its place")
    parser.add_argument("--kind", default="openvino", choices=["openvino", "vllm"])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bare", type=int, default=0, help="rounds beside the library alone")
    asked = parser.parse_args()
    if (asked.schemas is None) == (asked.grammars is None):
        parser.error("say either the folder of schemas or --grammars")
    if asked.bare and asked.schemas is None:
        parser.error("--bare takes turns over schemas")
    if asked.schemas is None:
        cases = make_cases(asked.grammars, random.Random(asked.seed))
        print(f"{len(cases)} grammars")
    else:
        cases, rejected = read_cases(asked.schemas)
        print(f"{len(cases)} schemas are held, {sum(rejected.values())} rejected:")
        for name, count in rejected.most_common(20):
            print(f"  {count} {name}")
    engine = Engine(asked.kind, asked.engine, asked.tokenizer, asked.streams)
    made = engine.run(shuffled(cases, asked.seed), asked.requests, asked.max_tokens, asked.seed)
    for name, count in made.ends.most_common():
        print(f"{name}: {count} ({count / asked.requests:.1%})")
    print(f"{made.tokens} tokens in {made.seconds:.0f} s: {made.speed:.0f} tokens/s")
    print("\n".join(made.wrong[:20]))
    if asked.bare:
        compare(engine, asked, cases)
    engine.close()
    sys.exit(bool(made.wrong))


if __name__ == "__main__":
    main()
