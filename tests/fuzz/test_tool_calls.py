"""Calls that must be made, of arguments drawn at temperature 1: all are of their tool's schema.

FUZZ_REQUESTS=10000 makes 200 of them.
"""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema

from fuzz.batches import REQUESTS, SEED
from fuzz.judged import CLIENTS
from support.engines import needs
from support.openai_api import CHAT, events, joined, user

CALLS = max(REQUESTS // 50, 16)
GUIDES = 8  # calls, among which is every list of tools
LONGEST = 512  # tokens, which no call of these tools needs
CITY = {"enum": ["Lima", "Oslo", "São Paulo", "서울"]}
DATE = {"type": "string", "pattern": "^20[0-9]{2}-[01][0-9]-[0-3][0-9]$"}
PLACE = {
    "type": "object",
    "properties": {"street": {"type": "string", "maxLength": 12}, "city": CITY},
    "required": ["street", "city"],
    "additionalProperties": False,
}
ITEM = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 10},
        "count": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "count"],
    "additionalProperties": False,
}
PROPERTIES: dict[str, dict[str, Any]] = {
    "weather": {"city": CITY, "days": {"type": "integer", "minimum": 0, "maximum": 14}},
    "clock": {"city": CITY, "seconds": {"type": "boolean"}, "zone": {"type": "null"}},
    "order": {
        "items": {"type": "array", "items": ITEM, "minItems": 1, "maxItems": 2},
        "to": PLACE,
    },
    "remind": {
        "on": DATE,
        "how": {"anyOf": [{"const": "mail"}, {"type": "integer", "minimum": 1, "maximum": 5}]},
    },
}
SCHEMAS = {
    name: {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    for name, properties in PROPERTIES.items()
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]


def call(http: httpx.Client, number: int) -> str:
    """The tool that an answer calls; every second answer may choose among all."""
    tools = TOOLS if number % 2 else [TOOLS[number // 2 % len(TOOLS)]]
    chunks = events(
        http,
        CHAT,
        messages=user("Order two apples to Lima, and tell me the weather there."),
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=1,
        seed=SEED * 10_000 + number,
        max_tokens=LONGEST,
    )
    (choice,) = joined(chunks)["choices"]
    assert choice["finish_reason"] == "tool_calls", choice
    assert not choice["text"], choice
    (made,) = choice["calls"]
    name: str = made["name"]
    assert name in {tool["function"]["name"] for tool in tools}  # type: ignore[index]
    jsonschema.validate(json.loads(made["arguments"]), SCHEMAS[name])
    return name


@needs("model that follows guides")
def test_a_call_that_must_be_made_has_valid_arguments_every_time(http: httpx.Client) -> None:
    # One after another until every guide is compiled, for which the server waits only so long.
    called = Counter(call(http, number) for number in range(GUIDES))
    with ThreadPoolExecutor(CLIENTS) as pool:
        called += Counter(pool.map(lambda number: call(http, number), range(GUIDES, CALLS)))
    print(f"\n{CALLS} calls: {dict(called)}")
    assert called.total() == CALLS
    assert called.keys() == PROPERTIES.keys()
