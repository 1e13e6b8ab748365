"""Which tokens are reasoning, where one has several characters, or a part of one."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from trellis.gateway.openai.reasoning_tokens import ReasoningTokens


@given(
    st.lists(st.text("ab", max_size=4), max_size=8),
    st.lists(st.integers(0, 24), max_size=6, unique=True),
    st.lists(st.integers(0, 24), max_size=4),
    st.lists(st.integers(0, 8), max_size=4),
)
def test_a_token_is_reasoning_if_any_of_its_text_is(
    texts: list[str], bounds: list[int], splits: list[int], turns: list[int]
) -> None:
    size = len("".join(texts))
    ends = [min(each, size) for each in sorted(bounds)]
    spans = [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=False) if a < b]
    expected, at = 0, 0
    for text in texts:
        own = range(at, at + max(len(text), 1))
        expected += any(a <= each < b for a, b in spans for each in own)
        at += len(text)

    pieces = [
        (low, high)
        for a, b in spans
        for cuts in [sorted({a, b, *(each for each in splits if a < each < b)})]
        for low, high in itertools.pairwise(cuts)
    ]
    tokens, told, at = ReasoningTokens(), 0, 0
    for number, text in enumerate(texts):  # in some turns all is told that is there
        tokens.add(text)
        at += len(text)
        if number in turns:
            ready = [each for each in pieces[told:] if each[1] <= at]
            told += len(ready)
            read = min([at, *(each[0] for each in pieces[told:])])
            tokens.take(ready, read)
    tokens.take(pieces[told:], at)
    assert tokens.count == expected
