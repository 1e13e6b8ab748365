"""python ask_instructor.py URL: answers of a given form by `instructor`."""

import json
import sys
from typing import Any

import instructor
import openai
from tools_asked import MOST_TOKENS, QUESTION, Report

(url,) = sys.argv[1:]
MODES = (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA)
asked: dict[str, Any] = {
    "model": "ensemble",
    "messages": [{"role": "user", "content": QUESTION}],
    "temperature": 0,
    "max_tokens": MOST_TOKENS,
    "max_retries": 0,  # the first answer has the form
}


def formed(mode: instructor.Mode) -> dict[str, Any]:
    """An answer of a given form: whole, and the last state of a stream."""
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none"), mode=mode)
    report = client.chat.completions.create(response_model=Report, **asked)
    *_, last = client.chat.completions.create_partial(response_model=Report, **asked)
    assert last.model_dump() == report.model_dump()
    return report.model_dump()


print(json.dumps({mode.value: formed(mode) for mode in MODES}))
