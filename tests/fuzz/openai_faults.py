"""Invalid requests to OpenAI's API: a field at fault, JSON that is none, HTTP that does not fit.

Which values a field takes is read from the schema of its endpoint, so that no field is left out.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from fuzz.json_bodies import ANYTHING
from fuzz.openai_bodies import VALID, Asked
from support.openai_api import CHAT, COMPLETIONS, MODEL, RESPONSES, user
from trellis.gateway.openai.chat_fields import ChatRequest
from trellis.gateway.openai.completions import CompletionRequest
from trellis.gateway.openai.fields import Fields
from trellis.gateway.openai.response_fields import ResponsesRequest
from trellis.gateway.openai.tokenizing import DetokenizeRequest, TokenizeRequest
from trellis.gateway.refusals import shown

TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
KINDS: dict[str, type[Fields]] = {
    CHAT: ChatRequest,
    COMPLETIONS: CompletionRequest,
    RESPONSES: ResponsesRequest,
    TOKENIZE: TokenizeRequest,
    DETOKENIZE: DetokenizeRequest,
}
BASE: dict[str, dict[str, Any]] = {
    CHAT: {"model": MODEL, "messages": user("Hi"), "max_tokens": 1},
    COMPLETIONS: {"model": MODEL, "prompt": "Hi", "max_tokens": 1},
    RESPONSES: {"model": MODEL, "input": "Hi", "max_output_tokens": 1},
    TOKENIZE: {"model": MODEL, "prompt": "Hi"},
    DETOKENIZE: {"model": MODEL, "tokens": [1, 2]},
}
JSON_TYPE = {"content-type": "application/json"}
# A value of each of JSON's types, and the types that take it.
SAMPLES: list[tuple[Any, set[str]]] = [
    (True, {"boolean"}),
    (1.5, {"number"}),
    (-7, {"number", "integer"}),
    (10**400, {"number", "integer"}),
    (2**70, {"number", "integer"}),
    ("x", {"string"}),
    ("1", {"string"}),
    ([], {"array"}),
    ([[[]]], {"array"}),
    ({"x": {}}, {"object"}),
]
WRONG_PROMPTS: list[Any] = [None, True, 1.5, {}, [], [[]], [True], [1, "a"], ["a", 1], [[1], "a"]]
WRONG_PROMPTS += [[-1], [2**31], [[1.5]], [None], [{}], ["a"] * 1025]
NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "0x1", "01", "+1"]
PATHS = st.sampled_from(sorted(KINDS))


@dataclass(frozen=True)
class Faulty:
    """A request that has to be rejected."""

    kind: str
    path: str
    body: bytes
    param: str | None = None  # what the error's `param` begins with, if a field is at fault
    status: int = 400
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON_TYPE)


def faulty(kind: str, path: str, name: str, value: Any) -> Faulty:
    """The base of that path with one field of this value."""
    body = json.dumps({**BASE[path], name: value}).encode()
    return Faulty(kind, path, body, name)


def _types(schema: Mapping[str, Any]) -> set[str]:
    """JSON's types that a part of a schema takes; empty: all."""
    for kind in ("anyOf", "oneOf"):
        if kind in schema:
            return {name for each in schema[kind] for name in _types(each)}
    return {"object"} if "$ref" in schema else {schema["type"]} if "type" in schema else set()


def _beyond(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values just outside of what a part of a schema takes."""
    for each in schema.get("anyOf", ()):
        yield from _beyond(each)
    for name, step in (("minimum", -1), ("maximum", 1)):
        if name in schema:
            yield schema[name] + step
    for name in ("exclusiveMinimum", "exclusiveMaximum"):
        if name in schema:
            yield schema[name]
    if "enum" in schema:
        yield "none of these"
    if "maxItems" in schema:
        yield [1 if _types(schema["items"]) == {"integer"} else "x"] * (schema["maxItems"] + 1)
    if schema.get("type") == "array":
        wrong = [each for each, of in SAMPLES if not of & _types(schema["items"])]
        yield from ([each] for each in wrong if _types(schema["items"]))


def _wrong_values() -> Iterator[tuple[str, str, Any]]:
    """(path, field, value) of each field and of each kind of wrong value."""
    for path, kind in KINDS.items():
        for name, schema in kind.model_json_schema()["properties"].items():
            taken = _types(schema)
            if not taken:
                yield from ((path, name, value) for value in (True, "x", 7, 0, {"type": "x"}))
            elif (path, name) == (COMPLETIONS, "prompt"):  # lists of several kinds
                yield from ((path, name, value) for value in WRONG_PROMPTS)
            else:
                wrong = [value for value, of in SAMPLES if not of & taken]
                yield from ((path, name, value) for value in (*wrong, *_beyond(schema)))


WRONG = list(_wrong_values())


@st.composite
def wrong_values(draw: st.DrawFn) -> Faulty:
    """A field with a value that it does not take."""
    return faulty("wrong value", *draw(st.sampled_from(WRONG)))


@st.composite
def unknown_fields(draw: st.DrawFn) -> Faulty:
    """A field that there is not."""
    path = draw(PATHS)
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)
    known = KINDS[path].model_fields
    name = draw(text.filter(lambda each: each not in known))
    made = faulty("unknown field", path, name, draw(ANYTHING.filter(_is_json)))
    return Faulty(made.kind, path, made.body, shown(name))


def _is_json(value: Any) -> bool:
    """Whether a value can be written: it has no lone surrogate, NaN or infinity."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return len(str(value)) < 4000


@st.composite
def junk_in_messages(draw: st.DrawFn) -> Faulty:
    """Something in a message, or in its parts, that is none."""
    path, name = draw(st.sampled_from([(CHAT, "messages"), (RESPONSES, "input")]))
    part = st.one_of(
        ANYTHING.filter(_is_json),
        st.just({"type": "image_url", "image_url": {"url": "http://x"}}),
        st.just({"type": "text", "text": 5}),
    )
    content = draw(st.lists(part, min_size=1, max_size=3))
    wrong = draw(
        st.sampled_from(
            [
                {"role": "user", "content": content},
                {"role": draw(st.text("abc")), "content": "x"},
                {"role": "user", "content": 5},
                {"role": "user", "content": "x", "colour": "red"},
                {"content": "x"},
                content[0] if isinstance(content[0], list | int | None) else [],
            ]
        )
    )
    return faulty("junk in messages", path, name, [*user("Hi"), wrong])


@st.composite
def no_numbers(draw: st.DrawFn) -> Faulty:
    """What is no number of JSON, or none that can be held, where one may stand."""
    asked = draw(VALID)
    name = draw(st.sampled_from(["temperature", "top_p", "seed", "presence_penalty"]))
    rest = {key: value for key, value in asked.body.items() if key != name}
    value = draw(st.sampled_from(NO_NUMBERS))
    body = f'{json.dumps(rest)[:-1]}, "{name}": {value}}}'.encode()
    return Faulty("no number", asked.path, body)


@st.composite
def twice(draw: st.DrawFn) -> Faulty:
    """A field that is sent twice, which others may read differently."""
    asked = draw(VALID)
    name = draw(st.sampled_from(sorted(asked.body)))
    value = json.dumps(draw(st.sampled_from([asked.body[name], None])))
    body = f"{json.dumps(asked.body)[:-1]}, {json.dumps(name)}: {value}}}".encode()
    return Faulty("sent twice", asked.path, body, name)


@st.composite
def surrogates(draw: st.DrawFn) -> Faulty:
    """Half a character, in a text or in a name."""
    asked = draw(VALID)
    half = draw(st.sampled_from(["\ud800", "a\udfff", "\udc00\ud800"]))
    more: dict[str, Any] = draw(st.sampled_from([{"user": half}, {"stop": [half]}, {half: 1}]))
    return Faulty("surrogate", asked.path, json.dumps({**asked.body, **more}).encode())


@st.composite
def no_json(draw: st.DrawFn) -> Faulty:
    """A body cut short, nested without end, of other bytes, or of another type."""
    asked = draw(VALID)
    whole = json.dumps(asked.body).encode()
    depth = draw(st.integers(65, 3000))
    deep = draw(st.sampled_from([b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth]))
    body = draw(
        st.one_of(
            st.integers(0, len(whole) - 1).map(lambda at: whole[:at]),
            st.sampled_from([deep, b'{"metadata":' + deep + b"}", whole + b"x", whole * 2]),
            st.sampled_from([b"", b"[]", b"null", b"5", b'"x"', b"\xff\xfe{}", whole[:-1] + b",}"]),
            st.binary(max_size=40).filter(lambda data: not data.strip().startswith(b"{")),
        )
    )
    return Faulty("no JSON", asked.path, body)


@st.composite
def wrong_http(draw: st.DrawFn) -> Faulty:
    """A type, a method, a path or a model that is not there."""
    asked: Asked = draw(VALID)
    body = json.dumps(asked.body).encode()
    kind = draw(st.sampled_from(["type", "method", "path", "model"]))
    if kind == "type":
        type_ = draw(st.sampled_from(["text/plain", "application/xml", "multipart/form-data", "x"]))
        return Faulty("type", asked.path, body, None, 415, headers={"content-type": type_})
    if kind == "method":
        method = draw(st.sampled_from(["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]))
        return Faulty("method", asked.path, b"", None, 405, method)
    if kind == "path":
        name = draw(st.sampled_from(["/v1/x", "/v1/", "/v1/models/x", "/v1/chat", "/v1/files/1"]))
        status = 400 if name.endswith("/") else 404  # no path is written so
        return Faulty("path", name, b"", None, status, "GET")
    name = draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80))
    return Faulty(
        "model", asked.path, json.dumps({**asked.body, "model": name}).encode(), "model", 404
    )
