# SPDX-License-Identifier: Apache-2.0
"""JSON that comes in pieces: where it ends and where it is malformed, as the library reads it."""

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.parsing import cut
from trellis.parsers.json_scan import MAX_DEPTH, JsonScanner

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
BROKEN = st.text('{}[]",:\\u0139aeE+-.tfn \n\x01', max_size=12)


def scan(pieces: list[str]) -> tuple[int, bool, bool]:
    """How many characters belong to the value, whether it is complete, and whether malformed."""
    scanner = JsonScanner()
    read = 0
    for piece in pieces:
        end = scanner.scan(piece, 0)
        read += end
        if end < len(piece):
            break
    return read, scanner.done or (not scanner.broken and scanner.end()), scanner.broken


def strict(text: str) -> Any:
    """A value as the library reads it; ValueError for what is no JSON."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def is_json(text: str) -> bool:
    try:
        strict(text)
    except ValueError:
        return False
    return text == text.strip(" \t\r\n")


@given(VALUES, st.sampled_from((None, 1)), st.booleans(), st.randoms(use_true_random=False))
def test_a_value_is_read_to_its_end_and_no_further(
    value: Any, indent: int | None, ascii_only: bool, dice: random.Random
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    assert scan(cut(text, dice)) == (len(text), True, False)
    assert scan(cut(f"{text}]", dice))[0] == len(text)


@given(BROKEN, st.randoms(use_true_random=False))
def test_what_the_library_does_not_read_is_not_complete(text: str, dice: random.Random) -> None:
    read, done, broken = scan(cut(text, dice))

    assert (read == len(text) and done) == is_json(text)
    assert (read, done, broken) == scan([text])
    if broken:  # no text that goes on so is JSON, and what is before may be the beginning of some
        assert not any(is_json(text[: read + 1] + more) for more in ("", '"', "]", "}", "0", ":0}"))


NUMBERS = ("NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "1e", "-", "[-]")
STRINGS = ("'a'", '"\x00"', '"\\x"', '"\\u12g4"', "nul", "tru ")
NESTED = ("[1,]", '{"a":1,}', "{a:1}", "[1 2]", '{"a" 1}')


@pytest.mark.parametrize("text", [*NUMBERS, *STRINGS, *NESTED])
def test_malformed_values_are_not_complete(text: str) -> None:
    read, done, _ = scan(list(text))

    assert not (done and read == len(text))


def test_nesting_is_limited() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH

    assert scan([deepest]) == (len(deepest), True, False)
    assert scan([f"[{deepest}]"]) == (MAX_DEPTH, False, True)


def test_a_megabyte_in_small_pieces_takes_a_second_or_two() -> None:
    text = '{"a": [' + '{"b": [1, 2.5, "x\\n\\u00e9"]}, ' * 30_000 + "null]}"
    began = time.process_time()

    assert scan([text[at : at + 10] for at in range(0, len(text), 10)]) == (len(text), True, False)
    assert time.process_time() - began < 10
