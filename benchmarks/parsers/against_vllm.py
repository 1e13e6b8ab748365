# SPDX-License-Identifier: Apache-2.0
"""Our parsers and vLLM's on outputs whose calls are known, whole and streamed.

    PYTHONPATH=src:tests PYTHON_OF_VLLM benchmarks/parsers/against_vllm.py OUTPUTS.jsonl TOKENIZER

OUTPUTS.jsonl is what model_outputs.py wrote; TOKENIZER is the tokenizer.json of any model. Prints
a table, a row a template, and to stderr the first differences of each kind. Right is what the
template was given: names, arguments as JSON, thoughts and text without white space around them.
vLLM gets each output whole, a token a step, and several tokens a step, as servers do that are busy
or guess ahead.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

from support.parser_calls import OPENAI_TOOLS, TOOLS
from support.parser_readings import Called, Reading, read
from support.parsing import cut
from support.vllm_parsers import VllmParser, tokenizer
from trellis.parsers import Setup
from trellis.parsers.registry import load

CUTS = 5  # of ours, an output
SHOWN = 2  # differences of a kind
COLUMNS = ("outputs", "ours", "ours streamed", "vLLM", "vLLM, a token a step", "vLLM, several")


def right(turn: Sequence[Any]) -> Reading:
    """The turn that a template was given, as a reading."""
    reasoning, text, calls = turn
    return Reading(reasoning, text, tuple(Called(name, json.dumps(args)) for name, args in calls))


def plain(reading: Reading | str) -> Any:
    """A reading so that two can be compared."""
    if isinstance(reading, str):
        return reading
    calls = [(call.name, _json(call.arguments)) for call in reading.calls]
    return reading.reasoning.strip(), reading.text.strip(), calls


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return f"not JSON: {text}"


def readings(record: Mapping[str, Any], file: Path, source: random.Random) -> dict[str, Any]:
    """What both make of an output. Asserts that ours does not depend on pieces, byte for byte."""
    text, prompt, form = record["output"], record["prompt"], load(record["form"])
    setup = Setup(prompt, TOOLS)
    ours = read(form, [text], setup)
    streamed = [read(form, cut(text, source), setup) for _ in range(CUTS)]
    tokens = tokenizer(file, tuple(record["lacks"]))

    def theirs() -> VllmParser:
        return VllmParser(record["vllm"], tokens, OPENAI_TOOLS, prompt, record["thinking"])

    ids = theirs().encode(text)
    places = sorted({0, len(ids), *(source.randint(0, len(ids)) for _ in range(len(ids) // 4))})
    return {
        "ours": ours,
        "ours streamed": next((each for each in streamed if each != ours), ours),
        "vLLM": _tried(lambda: theirs().whole(text)),
        "vLLM, a token a step": _tried(lambda: theirs().streamed([[each] for each in ids])),
        "vLLM, several": _tried(
            lambda: theirs().streamed([ids[start:end] for start, end in pairwise(places)])
        ),
    }


def _tried(parse: Callable[[], Reading]) -> Reading | str:
    try:
        return parse()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("outputs", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--most", type=int, default=None, help="outputs of a template")
    args = parser.parse_args()
    print("| format | template | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---:|" * len(COLUMNS))
    records = map(json.loads, args.outputs.open(encoding="utf-8"))
    for (form, template), group in groupby(records, _name):
        count: Counter[str] = Counter()
        for record in islice(group, args.most):
            source = random.Random(record["output"])
            _count(count, record, readings(record, args.tokenizer, source))
        numbers = " | ".join(str(count[column]) for column in COLUMNS)
        print(f"| {form} | {template} | {numbers} |", flush=True)


def _name(record: Mapping[str, Any]) -> tuple[str, str]:
    return record["form"], record["template"] + ("" if record["thinking"] else ", no thoughts")


def _count(count: Counter[str], record: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    truth = plain(right(record["turn"]))
    count["outputs"] += 1
    for column, reading in found.items():
        count[column] += plain(reading) == truth
        count[column + " wrong"] += plain(reading) != truth
        if plain(reading) != truth and count[column + " wrong"] <= SHOWN:
            print(f"{record['template']}, {column}: {record['output']!r}", file=sys.stderr)
            print(f"    right {truth}\n    got   {plain(reading)}", file=sys.stderr)


if __name__ == "__main__":
    main()
