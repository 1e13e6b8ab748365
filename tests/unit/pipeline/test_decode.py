"""From ids to text: the chunks of a sequence, joined, are its text decoded at once."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.hypothesis_profiles import examples
from support.tokenizer_folders import Loaded
from trellis.pipeline.decode import Detokenizer
from trellis.tokenizers import Tokenizer

CHUNKS = st.lists(st.lists(st.integers(0, 49_151), max_size=4), min_size=1, max_size=10)


@pytest.fixture
def tokenizer(loaded: Loaded) -> Tokenizer:
    return loaded["gpt2"]


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck))
@given(CHUNKS, st.sampled_from([None, False, True]))
def test_the_chunks_of_a_sequence_joined_are_its_text(
    tokenizer: Tokenizer, chunks: list[list[int]], skip: bool | None
) -> None:
    detokenizer = Detokenizer.of(tokenizer)
    sequence = detokenizer.sequence(skip)
    *rest, last = chunks
    texts = [sequence.add(ids, ended=False) for ids in rest] + [sequence.add(last, ended=True)]
    assert "".join(texts) == detokenizer.whole([each for ids in chunks for each in ids], skip)


@pytest.mark.parametrize(("cut", "text"), [(0, "Hello world"), (5, "Hello "), (11, "")])
def test_what_a_stop_word_takes_is_cut_off(tokenizer: Tokenizer, cut: int, text: str) -> None:
    detokenizer, ids = Detokenizer.of(tokenizer), tokenizer.encode("Hello world")
    assert detokenizer.whole(ids, cut=cut) == text
    assert detokenizer.sequence().add(ids, ended=True, cut=cut) == text


def test_padding_counts_only_where_rows_have_none(tokenizer: Tokenizer) -> None:
    end = tokenizer.eos_id
    assert end is not None
    assert Detokenizer.of(tokenizer).counted([5, end], None) == [5, end]
    padded = Detokenizer.of(tokenizer, padded=True)
    assert padded.counted([5, end, -1], None) == [5]
    assert padded.counted([5, end, -1], 2) == [5, end]


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck))
@given(CHUNKS, st.sets(st.sampled_from(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "none"])))
def test_of_special_tokens_only_those_that_are_shown_are_in_a_text(
    tokenizer: Tokenizer, chunks: list[list[int]], shown: set[str]
) -> None:
    ids = [token for chunk in chunks for token in chunk]
    kept = [
        token
        for token in ids
        if token not in tokenizer.special_tokens
        or tokenizer.special_tokens[token].decode() in shown
    ]
    sequence = Detokenizer.of(tokenizer).marked(frozenset(shown))
    made = "".join(sequence.add(chunk, ended=False) for chunk in chunks)
    assert made + sequence.add([], ended=True) == tokenizer.decode(kept, False)
