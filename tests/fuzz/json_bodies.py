"""Bodies for the generate endpoints: of the right types, of wrong ones, and no JSON at all."""

import json
from typing import Any

from hypothesis import strategies as st

from fuzz.model_inputs import INPUTS, LENGTHS, SENSIBLE, TEXT, harmless_length

BY_NAME = {item.name: item for item in INPUTS["ensemble"]}
OPTIONAL = [name for name in BY_NAME if name not in ("text_input", "max_tokens", "stream")]
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
# Triton ends a name at its NUL and then does not find it: among wrong types there are such.
KEY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
Body = dict[str, Any]


@st.composite
def right_types(draw: st.DrawFn) -> Body:
    """Every value of the type that its input has; which inputs there are is chance."""
    fields: Body = {}
    names = st.lists(st.sampled_from(OPTIONAL), max_size=4, unique=True)
    sampling = st.lists(st.sampled_from(list(SENSIBLE)), max_size=3, unique=True)
    for name in draw(st.one_of(sampling, names)):
        item = BY_NAME[name]
        if -1 in item.dims or draw(st.booleans()):
            fields[name] = draw(st.lists(item.values, max_size=4))
        else:
            fields[name] = draw(item.values)
    if draw(st.integers(0, 9)):
        fields["max_tokens"] = draw(BY_NAME["max_tokens"].values)
    body: Body = {}
    if draw(st.integers(0, 19)):
        body["text_input"] = draw(TEXT)
    if draw(st.booleans()):
        body["stream"] = draw(st.booleans())
    if not draw(st.integers(0, 3)):
        body["id"] = draw(st.text(max_size=20))
    if not draw(st.integers(0, 9)):
        fields[draw(KEY)] = draw(st.sampled_from([1, True, "x"]))
    return body | ({"parameters": fields} if draw(st.booleans()) else fields)


@st.composite
def wrong_types(draw: st.DrawFn) -> Body:
    """One or two values of any type at all."""
    body = draw(right_types())
    names = st.sampled_from([*BY_NAME, "id", "parameters"])
    for name in draw(st.lists(names, min_size=1, max_size=2)):
        body[name] = draw(ANYTHING)
    return body


@st.composite
def no_json(draw: st.DrawFn) -> bytes:
    """Bytes: a body cut short, or with something put in; or none of it JSON."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    whole = encoded(draw(right_types()))
    at = draw(st.integers(0, len(whole)))
    return whole[:at] + draw(st.binary(max_size=4)) + whole[draw(st.integers(at, len(whole))) :]


def encoded(body: Any) -> bytes:
    """As clients send it; lengths that would take minutes are made short."""
    return json.dumps(_short(body)).encode()


def _short(body: Any) -> Any:
    if isinstance(body, list):
        return [_short(item) for item in body]
    if not isinstance(body, dict):
        return body
    return {
        key: _lengths(value) if key in LENGTHS else _short(value) for key, value in body.items()
    }


def _lengths(value: Any) -> Any:
    if isinstance(value, list):
        return [_lengths(item) for item in value]
    return harmless_length(value) if type(value) is int else value
