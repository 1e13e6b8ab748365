"""Made-up answers in the formats of parsers/: valid calls, broken ones, markers and any text."""

import json
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from trellis.parsers import CallArguments, CallBegin, Event, Reasoning, Setup, Text, Tool

_ARGUMENTS = {"a": {"type": "integer"}, "b": {"type": ["string", "null"]}, "c": {"type": "string"}}
TOOLS = (Tool("f", {"properties": _ARGUMENTS}), Tool("get_weather"), Tool("a-b.c"))
NAMES = st.sampled_from([tool.name for tool in TOOLS] + ["unknown"])
SPACES = st.sampled_from(["", "", " ", "\n", "\n\n", " \n\t"])
PLAIN = st.text(max_size=12) | st.text("<[{\"\\'}]>|/_;,:()=\n abct", max_size=12)

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PLAIN
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.text("abc_é", min_size=1, max_size=3), VALUES, max_size=3)


@st.composite
def json_objects(draw: st.DrawFn, values: st.SearchStrategy[Any] = OBJECTS) -> str:
    """An object, as any library may write it."""
    separators = draw(st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", " : ")]))
    ascii_only = draw(st.booleans())
    text = json.dumps(draw(values), ensure_ascii=ascii_only, separators=separators)
    return text.replace("Infinity", "1e999")  # the library's own extension of JSON


@st.composite
def json_calls(draw: st.DrawFn, key: str = "arguments") -> str:
    """An object with a name and arguments, in any order and with any white space."""
    name = json.dumps(draw(NAMES))
    members = [f'"name": {name}', f'"{key}":{draw(SPACES)}{draw(json_objects())}']
    members += draw(st.sampled_from([[], [], ['"type": "function"'], ['"id": "VvvODy9mT"']]))
    order = draw(st.permutations(members))
    return f"{{{draw(SPACES)}{f',{draw(SPACES)}'.join(order)}{draw(SPACES)}}}"


@st.composite
def python_calls(draw: st.DrawFn) -> str:
    """A call in Python."""
    arguments = draw(OBJECTS)
    written = [f"{name}{draw(SPACES)}={value!r}" for name, value in arguments.items()]
    return f"{draw(NAMES)}({f',{draw(SPACES)}'.join(written)}{draw(SPACES)})"


@st.composite
def broken(draw: st.DrawFn, of: st.SearchStrategy[str]) -> str:
    """A text with a piece cut out, or with another put in."""
    text = draw(of)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 8)))
    return text[:start] + draw(st.just("") | PLAIN) + text[end:]


@st.composite
def text_arguments(draw: st.DrawFn, form: str) -> str:
    """Arguments whose values are plain text, in tags: `form` has {name}, {value} and {space}."""
    values = draw(st.dictionaries(st.sampled_from("abcd"), PLAIN | json_objects(), max_size=3))
    return "".join(
        form.format(name=name, value=value, space=draw(SPACES)) for name, value in values.items()
    )


def texts(*markers: str, valid: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Answers that are made of valid calls, broken calls, the format's markers and any text."""
    parts = st.one_of(valid, broken(valid), st.sampled_from(markers), PLAIN)
    return st.lists(parts, max_size=5).map("".join)


def tagged(opening: str, of: st.SearchStrategy[str], closing: str) -> st.SearchStrategy[str]:
    """A call between two markers, with white space beside them."""
    return st.tuples(SPACES, of, SPACES).map(
        lambda parts: f"{opening}{parts[0]}{parts[1]}{parts[2]}{closing}"
    )


def setups(format: str) -> st.SearchStrategy[Setup]:
    """With some tools or without, constrained or not."""
    return st.builds(
        Setup,
        prompt=st.sampled_from(PROMPTS.get(format, ("",))),
        tools=st.sampled_from([(), TOOLS]),
        constrained=st.booleans(),
    )


HERMES = ("<tool_call>", "</tool_call>", "\n<tool_call>\n", "\n</tool_call>")
LLAMA3 = ("<|python_tag|>", "<|python_start|>", "<|python_end|>", "; ", "{", "}")
LLAMA4 = ("<|python_start|>", "<|python_end|>", "[", "]", ", ", "f(", ")")
MISTRAL = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[", "]", ", ")
QWEN = (
    "<tool_call>", "<tool_call>\n<function=f>\n", "<function=f>", "\n<parameter=a>\n",
    "\n</parameter>", "</function>", "\n</function>\n</tool_call>", "</tool_call>",
)  # fmt: skip
GLM = (
    "<tool_call>f", "</tool_call>", "<arg_key>a</arg_key>", "<arg_value>", "</arg_value>", "\n",
)  # fmt: skip
DEEPSEEK = (
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "function<｜tool▁sep｜>f\n```json\n", "\n```",
)  # fmt: skip
HARMONY = (
    "<|start|>assistant", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "analysis",
    "<|channel|>analysis<|message|>", "<|channel|>final<|message|>", " to=functions.f", " json",
)  # fmt: skip
THINK = ("<think>", "</think>", "<think>\n", "\n</think>\n\n", "[THINK]", "[/THINK]", "\n")


def _several(of: st.SearchStrategy[str], separator: str) -> st.SearchStrategy[str]:
    return st.lists(of, min_size=1, max_size=3).map(separator.join)


_LLAMA3 = _several(json_calls("parameters") | json_calls(), "; ")
_LLAMA4 = _several(python_calls(), ", ").map(lambda calls: f"[{calls}]")
_MISTRAL_LIST = _several(json_calls(), ", ").map(lambda calls: f"[TOOL_CALLS][{calls}]")
_MISTRAL_NAMED = st.tuples(
    NAMES, st.sampled_from(["[ARGS]", "", "[CALL_ID]VvvODy9mT[ARGS]"]), json_objects()
).map(lambda parts: "[TOOL_CALLS]" + "".join(parts))
_QWEN = st.tuples(NAMES, text_arguments("<parameter={name}>\n{value}\n</parameter>{space}")).map(
    lambda parts: f"<tool_call>\n<function={parts[0]}>\n{parts[1]}</function>\n</tool_call>"
)
_GLM = st.tuples(
    NAMES,
    SPACES,
    text_arguments("<arg_key>{name}</arg_key>{space}<arg_value>{value}</arg_value>{space}"),
).map(lambda parts: f"<tool_call>{''.join(parts)}</tool_call>")
_DEEPSEEK = st.tuples(NAMES, json_objects(), st.booleans()).map(
    lambda parts: (
        f"<｜tool▁call▁begin｜>{parts[0]}<｜tool▁sep｜>{parts[1]}<｜tool▁call▁end｜>"
        if parts[2]
        else f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{parts[0]}\n```json\n{parts[1]}\n```"
        "<｜tool▁call▁end｜>"
    )
)
_DEEPSEEK_CALLS = _several(_DEEPSEEK, "\n").map(
    lambda calls: f"<｜tool▁calls▁begin｜>{calls}<｜tool▁calls▁end｜>"
)
_HEADERS = st.sampled_from(
    [
        "<|channel|>commentary to=functions.f <|constrain|>json",
        " to=functions.get_weather<|channel|>commentary json",
        " to=functions.unknown<|channel|>analysis",
        " to=a-b.c json",
    ]
)
_MESSAGE = st.one_of(
    st.tuples(_HEADERS, json_objects()).map("<|message|>".join),
    PLAIN.map(lambda text: f"<|channel|>analysis<|message|>{text}<|end|>"),
    PLAIN.map(lambda text: f"<|channel|>final<|message|>{text}"),
)
_THOUGHT = st.one_of(
    PLAIN.map(lambda text: f"<think>\n{text}\n</think>\n\n"),
    PLAIN.map(lambda text: f"[THINK]{text}[/THINK]"),
)


ANSWERS: dict[str, st.SearchStrategy[str]] = {
    "hermes": texts(*HERMES, valid=tagged("<tool_call>", json_calls(), "</tool_call>")),
    "llama3_json": texts(
        *LLAMA3, valid=_LLAMA3 | _LLAMA3.map(lambda calls: f"<|python_tag|>{calls}")
    ),
    "llama4_pythonic": texts(
        *LLAMA4, valid=_LLAMA4 | tagged("<|python_start|>", _LLAMA4, "<|python_end|>")
    ),
    "mistral": texts(*MISTRAL, valid=_MISTRAL_LIST | _MISTRAL_NAMED),
    "think": texts(*THINK, valid=_THOUGHT),
    "qwen3_coder": texts(*QWEN, valid=_QWEN),
    "glm": texts(*GLM, valid=_GLM),
    "deepseek_v3": texts(*DEEPSEEK, valid=_DEEPSEEK_CALLS | _DEEPSEEK),
    "harmony": texts(*HARMONY, valid=_several(_MESSAGE, "<|start|>assistant")),
}
ANSWERS["think+hermes"] = st.tuples(ANSWERS["think"], ANSWERS["hermes"]).map("".join)
PROMPTS = {
    "think": ("", "<think>\n", "[THINK]"),
    "think+hermes": ("", "<think>"),
    "harmony": ("", "<|start|>assistant", "<|start|>assistant<|channel|>analysis<|message|>"),
}

# What may stand between two events in a text, beside what they say: nothing else may be lost.
_STRINGS = (
    r'[\s,:]*(?:"(?:name|id|type|arguments|parameters)"[\s,:]*(?:"(?:[^"\\]|\\.)*")?[\s,:]*)*'
)
_OPEN = r"(?:\n?<tool_call>|<\|python_tag\|>|<\|python_start\|>|\[TOOL_CALLS\])?"
MARKUP = {
    "hermes": (rf"\s*{_OPEN}\s*\{{{_STRINGS}", rf"{_STRINGS}\}}\s*[</tol_ca>]{{0,12}}"),
    "llama3_json": (rf"\s*;?\s*{_OPEN}\s*\{{{_STRINGS}", rf"{_STRINGS}\}}(?:<\|python_end\|>)?"),
    "mistral": (
        rf"[\s,]*{_OPEN}\s*(?:\[?\s*\{{{_STRINGS}|[^\s\[\]{{}}]+(?:\[CALL_ID\][^\s\[\]{{}}]+)?(?:\[ARGS\])?\s*)",
        rf"(?:{_STRINGS}\}}[\s,]*\]?)?",
    ),
    "deepseek_v3": (
        r"(?:<｜tool▁calls▁begin｜>)?\s*<｜tool▁call▁begin｜>[^<\n]+<｜tool▁sep｜>(?:[^<\n]+\n```json\n)?",
        r"(?:\n?`{0,3})?(?:<[｜tool▁calsend]*[｜>]?>?\s*){0,2}",
    ),
    "qwen3_coder": (
        r"\n{0,2}(?:<tool_call>\s*)?<function=[^>]+>",
        r"</function>\s*(?:<[/tol_ca>]{0,11})?",
    ),
    "glm": (r"\n?<tool_call>\s*[^<\n]+", "</tool_call>"),
}
REWRITTEN = ("qwen3_coder", "glm")  # arguments, which are in no text as they are given


def accounts_for(format: str, text: str, events: Sequence[Event]) -> bool:
    """Whether the events and the format's markup around them make up the whole text, in order."""
    before, after = MARKUP[format]
    pattern = ""
    for event in events:
        if isinstance(event, (Text, Reasoning)):
            pattern += re.escape(event.text)
        elif isinstance(event, CallBegin):
            pattern += before
        elif isinstance(event, CallArguments):
            pattern += ".*?" if format in REWRITTEN else re.escape(event.text)
        else:
            pattern += after
    return re.fullmatch(pattern, text, re.DOTALL) is not None
