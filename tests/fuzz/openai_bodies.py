"""Valid requests to OpenAI's API, of all fields that the demo engine has."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from fuzz.model_inputs import TEXTS
from support.openai_api import CHAT, COMPLETIONS, MODEL, RESPONSES

Body = dict[str, Any]
MOST_TOKENS = 8
LOG_PROBS = "message.output_text.logprobs"
# What ends a line, or an event, to some reader of events.
LINE_ENDS = "a\n\ndata: [DONE]\n\n\r\u2028\u2029\u0085data: b"
TEXT = st.one_of(
    st.just(LINE_ENDS),
    st.sampled_from([text for text in TEXTS if len(text) < 400]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40),
)
# The vocabulary has no tokens for these, and a prompt needs one.
PROMPT = TEXT.filter(lambda text: bool(text.strip("\x04\x06\x13\x14\x16\x1d")))
IDS = st.lists(st.integers(0, 49151), min_size=1, max_size=12)
STOP = st.sampled_from(["the", ".", "\n", "안", "a,b", ", ", "<|im_end|>", " ", "Hello", ""])
BOOLEANS = st.none() | st.booleans()

# Drawn for every request, so that it can be had again: greedy, or of a seed.
RANDOMNESS = st.one_of(
    st.just({"temperature": 0}),
    st.fixed_dictionaries(
        {"seed": st.integers(-(2**63), 2**64 - 1)},
        optional={
            "temperature": st.floats(0, 2) | st.none(),
            "top_p": st.floats(0.05, 1) | st.none(),
            "top_k": st.integers(-1, 50) | st.none(),
            "min_p": st.floats(0, 1),
        },
    ),
)
HARMLESS: dict[str, st.SearchStrategy[Any]] = {
    "user": TEXT,
    "metadata": st.dictionaries(st.text("abc", min_size=1, max_size=5), TEXT, max_size=2),
    "safety_identifier": TEXT,
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": st.sampled_from(["24h", None]),
    "prompt_cache_options": st.sampled_from([{}, {"mode": "explicit", "ttl": "30m"}, None]),
    "service_tier": st.sampled_from(["auto", "default", None]),
    "store": st.sampled_from([False, None]),
}
PENALTIES: dict[str, st.SearchStrategy[Any]] = {
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.floats(-2, 2),
    "no_repeat_ngram_size": st.just(0),
    "repetition_penalty": st.floats(0.5, 2),
}
GENERATING: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(1, 3) | st.none(),
    "stop": STOP | st.lists(STOP, max_size=4) | st.none(),
    "ignore_eos": BOOLEANS,
    "min_tokens": st.integers(0, 1),
    "skip_special_tokens": BOOLEANS,
    "stop_token_ids": st.lists(st.integers(0, 49151), max_size=4) | st.none(),
    "bad_words": st.lists(TEXT, max_size=2) | st.none(),
    "logit_bias": st.sampled_from([{}, None]),
    "best_of": st.sampled_from([1, None]),
    "include_stop_str_in_output": st.sampled_from([False, None]),
    "priority": st.sampled_from([0, None]),
}
LENGTH = st.integers(1, MOST_TOKENS)
SCHEMA: Body = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[Body] = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock", "description": '안 "now"', "strict": True}},
]
CLOCK = {"type": "function", "function": {"name": "clock"}}
# Few of each kind: every one that is new is compiled.
HELD: list[Body] = [
    {},
    {"response_format": {"type": "text"}},
    {"response_format": None},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
    {"structured_outputs": {"regex": "[a-f]{2,9}"}},
    {"structured_outputs": {"choice": ["Yes", "안녕 🙂", 'a "b"']}},
    {"guided_grammar": 'root ::= "a" root | "b"'},
]
CALLING: list[Body] = [
    {"tools": [], "tool_choice": "auto"},
    {"tools": TOOLS, "tool_choice": "none"},
    {"tools": TOOLS, "parallel_tool_calls": False},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": CLOCK},
]
NOTHING: list[Body] = [
    {},
    {"response_format": {"type": "text"}},
    {"response_format": None},
    {"text": {"format": {"type": "text"}}},
    {"tools": [], "tool_choice": "auto"},
]
# What does not go with a constraint, and several sequences: those that share steps may differ.
BESIDE = ("n", "bad_words", "ignore_eos", "min_tokens", "stop", "stop_token_ids")
CONSTRAINED = 40  # tokens of an answer that is held to something: enough for some to end


@dataclass(frozen=True)
class Asked:
    """A request: where it goes, and its JSON."""

    path: str
    body: Body


def _fields(choices: dict[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[Body]:
    """Some of these fields."""
    names = st.lists(st.sampled_from(sorted(choices)), max_size=most, unique=True)
    return names.flatmap(lambda some: st.fixed_dictionaries({name: choices[name] for name in some}))


@st.composite
def content(draw: st.DrawFn, kind: str = "text") -> Any:
    """The content of a message: text, or parts of it."""
    if draw(st.booleans()):
        return draw(TEXT)
    return [{"type": kind, "text": text} for text in draw(st.lists(TEXT, min_size=1, max_size=3))]


@st.composite
def messages(draw: st.DrawFn) -> list[Body]:
    """Turns of a chat. A tool's message is the last that the demo's template would not take."""
    made: list[Body] = []
    if draw(st.booleans()):
        role = draw(st.sampled_from(["system", "developer"]))
        made.append({"role": role, "content": draw(content())})
    for _ in range(draw(st.integers(0, 2))):
        made.append({"role": "user", "content": draw(content())})
        made.append({"role": "assistant", "content": draw(content())})
    made.append({"role": "user", "content": draw(content())})
    if draw(st.booleans()):
        made[-1]["name"] = draw(TEXT)
    return made


def held(body: Body, constraint: Body) -> Body:
    """A body with what its answer is held to, long enough that some answers end."""
    if (body.get("n") or 1) > 1:  # what is drawn in steps that others share may differ
        body = body | {"temperature": 0}
    if constraint in NOTHING:
        return body | constraint
    kept = {name: value for name, value in body.items() if name not in BESIDE}
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if kept.get(name):
            kept[name] = CONSTRAINED
    return kept | constraint


@st.composite
def chats(draw: st.DrawFn) -> Asked:
    """A chat."""
    body: Body = {"model": MODEL, "messages": draw(messages()), **draw(RANDOMNESS)}
    body[draw(st.sampled_from(["max_tokens", "max_completion_tokens"]))] = draw(LENGTH)
    if draw(st.booleans()):
        body |= {"logprobs": True, "top_logprobs": draw(st.sampled_from([0, None]))}
    if not draw(st.integers(0, 4)):
        body["messages"] += [{"role": "assistant", "content": "So I say: one, t"}]
        body["continue_final_message"] = True
    more: Body = {"chat_template_kwargs": st.just({"tone": "kind"})}
    body |= draw(_fields(GENERATING | HARMLESS | PENALTIES | more, 6))
    return Asked(CHAT, held(body, draw(st.sampled_from(HELD + CALLING))))


@st.composite
def completions(draw: st.DrawFn) -> Asked:
    """Completions."""
    prompts = st.one_of(
        PROMPT, IDS, st.lists(PROMPT, min_size=1, max_size=3), st.lists(IDS, min_size=1, max_size=3)
    )
    body: Body = {
        "model": MODEL,
        "prompt": draw(prompts),
        "max_tokens": draw(LENGTH),
        **draw(RANDOMNESS),
    }
    extra = draw(st.sampled_from(["", "", "echo", "echo alone", "logprobs"]))
    if extra.startswith("echo"):
        body["echo"] = True
        body |= {"max_tokens": 0} if extra == "echo alone" else {}
    elif extra:
        body["logprobs"] = 0
    more: Body = {"add_special_tokens": BOOLEANS, "suffix": st.sampled_from(["", None])}
    if body["max_tokens"] == 0:
        more |= {"min_tokens": st.just(0)}
    body |= draw(_fields(GENERATING | HARMLESS | PENALTIES | more, 6))
    return Asked(COMPLETIONS, held(body, draw(st.sampled_from(HELD))))


@st.composite
def responses(draw: st.DrawFn) -> Asked:
    """A response."""
    turns = draw(messages())
    for turn in turns:
        turn.pop("name", None)
        if not draw(st.integers(0, 2)):
            turn["type"] = "message"
    sent = draw(st.one_of(TEXT, st.just(turns)))
    body: Body = {
        "model": MODEL,
        "input": sent,
        "max_output_tokens": draw(LENGTH),
        **draw(RANDOMNESS),
    }
    if draw(st.booleans()):
        body["include"] = [LOG_PROBS]
    more: Body = {"instructions": TEXT, "truncation": st.just("disabled")}
    body |= draw(_fields(HARMLESS | PENALTIES | more, 5))
    flat = [{"type": "function", **tool["function"]} for tool in TOOLS]
    form = {"type": "json_schema", "name": "n", "schema": SCHEMA}
    constraint: list[Body] = [
        {},
        {"text": {"format": {"type": "text"}}},
        {"text": {"format": {"type": "json_object"}}},
        {"text": {"format": form}},
        {"tools": flat, "tool_choice": "required"},
        {"tools": flat, "tool_choice": {"type": "function", "name": "clock"}},
    ]
    chosen = draw(st.sampled_from(constraint))
    if "tools" in chosen:
        body.pop("include", None)  # rejected beside tools
    return Asked(RESPONSES, held(body, chosen))


VALID = st.one_of(chats(), completions(), responses())
