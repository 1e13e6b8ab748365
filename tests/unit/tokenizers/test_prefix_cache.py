# SPDX-License-Identifier: Apache-2.0
"""Ids with kept beginnings are the tokenizer's own, for every text; memory is bounded."""

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support import tokenizer_corpus
from support.hypothesis_profiles import examples
from support.tokenizer_folders import TYPE_OF, Folders, Loaded, slow_where_large
from trellis.tokenizers import Tokenizer, TokenizerError, load, prefix_cache
from trellis.tokenizers.prefix_cache import PrefixEncoder

NAMES = ["gpt2", "llama", "llama_json", "mistral3", "t5", "smollm2", "llama3", "qwen36", "tekken"]
SPACES = [" ", "  ", "\n", "\n\n", "\t", "▁", "\u3000", "\u200b"]
LINES = tokenizer_corpus.lines()


class Counting(Tokenizer):
    """A tokenizer that notes what it was asked to encode."""

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner
        self.asked: list[str] = []

    @property
    def cut_tokens(self) -> tuple[str, ...]:
        return self.inner.cut_tokens

    def encode(self, text: str) -> list[int]:
        raise AssertionError("a prompt of a conversation has its own BOS")

    def token_bytes(self, token: int) -> bytes:
        raise AssertionError

    def encode_bare(self, text: str) -> list[int]:
        self.asked.append(text)
        return self.inner.encode_bare(text)


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts at nearly every token, so that short texts have many parts."""
    monkeypatch.setattr(prefix_cache, "LEAST", 1)


def texts_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[str]]:
    """Conversations: texts that go on from the one before, of tokens, parts of them, and words."""
    special = [text.decode(errors="replace") for text in tokenizer.special_tokens.values()]
    tokens = [*tokenizer.cut_tokens, *special[:60]]
    whole = st.sampled_from(tokens)
    part = st.tuples(whole, st.integers(0, 9), st.integers(1, 9)).map(lambda t: t[0][t[1] : t[2]])
    words = st.one_of(st.sampled_from(LINES), st.text(max_size=6), st.sampled_from(SPACES))
    turn = st.lists(st.one_of(whole, part, words), max_size=8).map("".join)
    return st.lists(turn, min_size=1, max_size=4).map(
        lambda turns: ["".join(turns[: end + 1]) for end in range(len(turns))]
    )


@pytest.mark.usefixtures("short_parts")
@pytest.mark.parametrize("parses", ["true", "false"])
@pytest.mark.parametrize("name", [slow_where_large(name) for name in NAMES])
def test_ids_are_the_tokenizers_own(name: str, parses: str, folders: Folders) -> None:
    tokenizer = load(TYPE_OF[name], folders[name], {"parse_special_tokens": parses})
    encoder = PrefixEncoder(tokenizer, 1 << 16)

    @settings(
        max_examples=examples(1_500),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(texts_of(tokenizer) if tokenizer.cut_tokens else texts_of(load("gpt2", folders["gpt2"])))
    def check(texts: list[str]) -> None:
        for text in texts:
            assert encoder.encode_bare(text) == tokenizer.encode_bare(text)

    check()
    assert encoder.exact or parses == "false"
    assert encoder.bytes <= 1 << 16


def conversation(turns: int, words: int = 300) -> str:
    said = [
        f"<|im_start|>{'user' if turn % 2 == 0 else 'assistant'}\n"
        f"{turn} {tokenizer_corpus.long_text(words, seed=turn)}<|im_end|>\n"
        for turn in range(turns)
    ]
    return "".join(said)


@pytest.mark.slow
def test_a_second_turn_encodes_its_new_part_alone(loaded: Loaded) -> None:
    counting = Counting(loaded["smollm2"])
    encoder = PrefixEncoder(counting, 1 << 20)
    first = conversation(41)
    encoder.encode_bare(first + "<|im_start|>assistant\n")
    counting.asked.clear()
    second = conversation(43) + "<|im_start|>assistant\n"
    assert encoder.encode_bare(second) == loaded["smollm2"].encode_bare(second)
    new = len(second) - len(first)
    assert sum(map(len, counting.asked)) <= new + prefix_cache.LEAST
    assert sum(map(len, counting.asked)) < len(second) / 10


def test_parts_unused_for_longest_are_dropped_first(loaded: Loaded) -> None:
    counting = Counting(loaded["gpt2"])
    letters = [letter + " x" * 200 + "<|endoftext|>" for letter in "abc"]
    once = PrefixEncoder(loaded["gpt2"], 1 << 20)
    once.encode_bare(letters[0])
    encoder = PrefixEncoder(counting, 2 * once.bytes)
    for index in (0, 1, 0, 2):  # b is then the one unused for longest
        encoder.encode_bare(letters[index])
    counting.asked.clear()
    for index in (0, 2, 1):
        encoder.encode_bare(letters[index])
    assert [text for text in counting.asked if len(text) > 100] == ["b" + " x" * 200]
    assert 0 < encoder.bytes <= 2 * once.bytes


@pytest.mark.parametrize("most", [0, 100])
def test_nothing_is_kept_above_the_bound(most: int, loaded: Loaded) -> None:
    encoder = PrefixEncoder(loaded["gpt2"], most)
    text = "a b" * 400 + "<|endoftext|>"
    assert encoder.encode_bare(text) == loaded["gpt2"].encode_bare(text)
    assert encoder.bytes == 0
    assert encoder.exact == (most > 0)


class Shifting(Counting):
    """Says that it may be cut, and may not."""

    def encode_bare(self, text: str) -> list[int]:
        return [len(text), *self.inner.encode_bare(text)]


def test_a_tokenizer_that_fails_the_corpus_is_not_cut(loaded: Loaded) -> None:
    shifting = Shifting(loaded["gpt2"])
    encoder = PrefixEncoder(shifting, 1 << 20)
    text = "a b" * 400 + "<|endoftext|>"
    assert not encoder.exact
    assert encoder.encode_bare(text) == shifting.encode_bare(text)


def test_a_type_of_ones_own_is_not_cut() -> None:
    class Letters(Tokenizer):
        vocab_size = 1 << 17

        def encode(self, text: str) -> list[int]:
            return list(map(ord, text))

        def token_bytes(self, token: int) -> bytes:
            return chr(token).encode()

    encoder = PrefixEncoder(Letters(), 1 << 20)
    assert not encoder.exact
    assert encoder.encode_bare("abc") == [97, 98, 99]


def test_an_error_tells_the_place_in_the_whole_text(loaded: Loaded) -> None:
    text = "a b" * 400 + "<|endoftext|>" + "\ud800"
    with pytest.raises(TokenizerError, match="at 1213"):
        PrefixEncoder(loaded["gpt2"], 1 << 20).encode_bare(text)


def test_threads_get_their_own_ids_while_parts_are_dropped(loaded: Loaded) -> None:
    tokenizer = loaded["gpt2"]
    texts = [f"{letter} {n} " * 90 + "<|endoftext|>" for letter in "abcd" for n in range(6)]
    texts = [a + b for a in texts for b in texts[:3]]
    expected = [tokenizer.encode_bare(text) for text in texts]
    encoder = PrefixEncoder(tokenizer, 8_000)
    wrong: list[Any] = []

    def ask(step: int) -> None:
        for index in range(len(texts)):
            at = index * step % len(texts)
            try:
                if encoder.encode_bare(texts[at]) != expected[at]:
                    wrong.append(texts[at])
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(step,)) for step in (1, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert encoder.bytes <= 8_000
