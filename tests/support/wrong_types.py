# SPDX-License-Identifier: Apache-2.0
"""A JSON document with one value of another type than it should have."""

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Place = tuple[str | int, ...]
WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**31, 2**70, 1.5, float("inf"), "", "x", "8", "\ud800"]),
    st.sampled_from([[], [1], ["x"], [[]], [{}], [None], {}, {"x": 1}, {"content": 5}]),
    st.text(max_size=3),
)


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where the values of a document are; of a list the first three."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 3)):
            yield from places(value[index], (*at, index))


def with_wrong(document: Any) -> st.SearchStrategy[Any]:
    """The document with one value replaced."""
    return st.builds(
        lambda at, wrong: replaced(document, at, wrong),
        st.sampled_from(list(places(document))),
        WRONG,
    )


def replaced(document: Any, at: Place, value: Any) -> Any:
    """A copy with another value in one place."""
    if not at:
        return value
    made = copy.deepcopy(document)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return made
