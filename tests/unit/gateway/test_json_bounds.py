# SPDX-License-Identifier: Apache-2.0
"""JSON is counted before it is parsed: rightly for all JSON, and in linear time for anything."""

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trellis.gateway.json_bounds import STRINGS, check_bounds
from trellis.gateway.limits import Limits
from trellis.gateway.refusals import Refusal

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=30,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def keys(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(keys, value.values()))
    return sum(map(keys, value)) if isinstance(value, list) else 0


@example({"": None, "00": None, "0": {"": None}}, 2, 3)  # two first keys
@given(VALUES, st.integers(1, 4), st.integers(1, 10))
def test_what_is_counted_is_what_the_parser_would_find(
    value: Any, most_depth: int, most_keys: int
) -> None:
    limits = Limits(json_depth=most_depth, json_keys=most_keys)
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    within = depth(value) <= most_depth and keys(value) <= most_keys
    if within:
        check_bounds(body, limits)
    else:
        with pytest.raises(Refusal, match=r"nested too deeply|keys; send at most"):
            check_bounds(body, limits)


@given(st.binary(max_size=60))
def test_strings_are_found_in_anything(data: bytes) -> None:
    """A quote outside of a string always begins one, closed or not."""
    assert b'"' not in STRINGS.sub(b"", data)


@pytest.mark.parametrize(
    "piece",
    [rb"\"", b'"', b'\\"\\', b"\\", b'"a\\', b'",', b'["', b"[", b"{", b'{"', b'":', b"\\\\"],
)
@pytest.mark.parametrize("begin", [b"", b'"', b"[", b'{"a": "'])
def test_no_body_takes_longer_than_its_length_allows(begin: bytes, piece: bytes) -> None:
    """32 KB of \\" in a string without an end took 8.6 s, and the whole gateway with it."""
    body = begin + piece * (256_000 // len(piece)) + b"," * 20_000 + b"[" * 100
    began = time.monotonic()
    with contextlib.suppress(Refusal):
        check_bounds(body, Limits())
    assert time.monotonic() - began < 5  # quadratic it would be minutes
