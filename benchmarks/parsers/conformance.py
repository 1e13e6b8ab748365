# SPDX-License-Identifier: Apache-2.0
"""The cases of the package canitoolcall: recorded and published outputs, and what they mean.

    PYTHONPATH=src:tests:CANITOOLCALL .venv/bin/python benchmarks/parsers/conformance.py

CANITOOLCALL is where the package canitoolcall lies (`pip install --target`). Its cases are of
chat templates, of the tests of vLLM, SGLang, llama.cpp and Ollama, of bug reports and of recorded
outputs; its own checks judge: what was expected, whole and streamed, no marker in an answer,
arguments that are JSON of the tool's schema. Prints the cases that do not pass, and a table.
"""

import random
from collections import Counter
from typing import Any

from canitoolcall.checks import case_status, run_checks
from canitoolcall.fixtures import load_family, load_fixtures
from canitoolcall.results import Observation, ParsedToolCall, ParseResult

from support.parser_readings import Reading, read
from support.parsing import cut
from trellis.parsers import Setup, Tool
from trellis.parsers.registry import load

FORMS = {
    "qwen3-hermes": "think+hermes",
    "llama": "llama3_json",
    "mistral": "think+mistral",
    "qwen3-xml": "think+qwen3_coder",
    "glm": "think+glm",
    "deepseek": "think+deepseek_v3",
    "gpt-oss": "harmony",
}
OTHERS = {"llama4": "llama4_pythonic"}  # by the model's variant
NOT_OURS = ("deepseek-v32", "deepseek-v4", "deepseek-v41")
CUTS = 8


def result(reading: Reading) -> ParseResult:
    """A reading in the package's words."""
    calls = tuple(ParsedToolCall(call.name, call.arguments) for call in reading.calls)
    return ParseResult(reading.text or None, reading.reasoning or None, calls)


def observe(case: Any, name: str, prompt: str) -> Observation:
    """What our parser makes of a case, whole and cut."""
    tools = [each["function"] for each in case.tools]
    setup = Setup(prompt, [Tool(each["name"], each.get("parameters") or {}) for each in tools])
    form = load(name)
    streams = {"one": result(read(form, list(case.raw_output), setup))}
    for number in range(CUTS):
        pieces = cut(case.raw_output, random.Random(number))
        streams[f"rand:{number}:8"] = result(read(form, pieces, setup))
    return Observation(result(read(form, [case.raw_output], setup)), streams)


def main() -> None:
    """Print the cases that do not pass, and how many do."""
    table = []
    for slug, name in FORMS.items():
        family, count = load_family(slug), Counter[str]()
        for case in load_fixtures(families=[slug]):
            model = family.reference_for(case.reference_model)
            if model is None or model.variant in NOT_OURS:
                continue
            chosen = next((OTHERS[key] for key in OTHERS if key in model.variant), name)
            given = case.generation_prompt
            prompt = model.default_generation_prompt if given is None else given
            seen = observe(case, chosen, prompt or "")
            rows = run_checks(case, family, seen)
            status = case_status(rows).value
            count[status] += 1
            if status not in ("pass", "soft_pass"):
                print(f"{case.id}: {case.raw_output!r}\n    got {seen.nonstream}")
                print(f"    expected {case.expected or case.expected_error}")
        table.append((name, slug, count))
    print("| format | cases | pass | but for white space | fail |\n|---|---|---:|---:|---:|")
    for name, slug, count in table:
        numbers = [count[status] for status in ("pass", "soft_pass", "fail")]
        print(f"| {name} | {slug} | " + " | ".join(map(str, numbers)) + " |")


if __name__ == "__main__":
    main()
