"""Stop strings end a text before themselves, however they fall on token borders."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.hypothesis_profiles import examples
from trellis.pipeline.stop_strings import StopMatcher

SPECIAL = ("<S>", "<|e|>")  # pieces that are special tokens


class Pieces:
    """A vocabulary of the pieces given: id -> text."""

    skip_special_tokens = True

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces
        self.special_tokens = {
            index: piece.encode() for index, piece in enumerate(pieces) if piece in SPECIAL
        }

    def stream_decoder(self, skip_special_tokens: bool | None = None) -> "Decoder":
        skip = self.skip_special_tokens if skip_special_tokens is None else skip_special_tokens
        return Decoder(self, skip)


class Decoder:
    """Its texts, with or without special tokens."""

    def __init__(self, vocabulary: Pieces, skip: bool) -> None:
        self.vocabulary, self.skip = vocabulary, skip

    def prime(self, ids: list[int]) -> None:
        pass

    def push(self, ids: list[int]) -> str:
        hidden = self.vocabulary.special_tokens if self.skip else {}
        return "".join(self.vocabulary.pieces[index] for index in ids if index not in hidden)


def answer(
    pieces: list[str],
    words: list[str],
    step: int,
    min_tokens: int = 0,
    bad_words: tuple[str, ...] = (),
    skip: bool | None = None,
    include: bool = False,
) -> list[str]:
    """The growing text that a client sees, one entry for each push, the cut applied."""
    vocabulary: Any = Pieces(pieces)
    matcher = StopMatcher(vocabulary, words, min_tokens, None, bad_words, skip, include)
    decoder = vocabulary.stream_decoder(skip)
    seen, text = [], ""
    for index in range(0, len(pieces), step):
        text += decoder.push(matcher.push(list(range(len(pieces)))[index : index + step]))
        if matcher.stopped:
            seen.append(text[: len(text) - matcher.cut])
            return seen
        seen.append(text)
    seen.append(text + decoder.push(matcher.end()))
    return seen


PIECES = st.lists(st.text("abc ", max_size=4), max_size=12)
WORDS = st.lists(st.text("abc ", min_size=1, max_size=4), min_size=1, max_size=3)


@given(PIECES, st.text("abc ", min_size=1, max_size=6), st.integers(1, 4))
def test_the_text_ends_before_the_stop_string(pieces: list[str], word: str, step: int) -> None:
    whole = "".join(pieces)
    assert answer(pieces, [word], step)[-1] == re.split(re.escape(word), whole, maxsplit=1)[0]


@given(PIECES, WORDS, st.integers(1, 4))
def test_nothing_seen_is_ever_taken_back(pieces: list[str], words: list[str], step: int) -> None:
    seen = answer(pieces, words, step)
    for earlier, later in itertools.pairwise(seen):
        assert later.startswith(earlier)
    assert not any(word in seen[-1] for word in words)
    assert "".join(pieces).startswith(seen[-1])


@given(PIECES, WORDS)
def test_without_a_match_everything_arrives(pieces: list[str], words: list[str]) -> None:
    whole = "".join(pieces)
    if not any(word in whole for word in words):
        assert answer(pieces, words, 1)[-1] == whole


@given(PIECES, WORDS, st.integers(1, 4))
def test_a_text_may_end_behind_its_stop_string(
    pieces: list[str], words: list[str], step: int
) -> None:
    *_, text = answer(pieces, words, step, include=True) or [""]
    *_, without = answer(pieces, words, step) or [""]
    assert "".join(pieces).startswith(text)
    assert text.startswith(without)
    begun = [word for word in words if text[len(without) :].startswith(word)]
    stopped = any(word in "".join(pieces) for word in words)
    assert (text[len(without) :] in begun) if stopped else (text == without)


def test_a_bad_word_is_no_part_of_a_text_that_keeps_its_stop_string() -> None:
    seen = answer(["a", "bad", "word"], ["zz"], 1, bad_words=("adw",), include=True)
    assert seen[-1] == "ab"


def test_a_stop_string_with_a_special_token_ends_the_text_that_leaves_it_out() -> None:
    assert answer(["Hi ", "Bye", "<|e|>", "x"], ["Bye<|e|>"], 1, include=True)[-1] == "Hi Bye"


def test_the_part_of_a_token_before_the_stop_string_is_kept() -> None:
    assert answer(["He said", ": st", "op now"], ["stop"], 1) == ["He said", "He said", "He said: "]


def test_a_stop_string_counts_only_after_min_tokens() -> None:
    assert answer(["a", "stop", "b", "stop", "c"], ["stop"], 1, min_tokens=3)[-1] == "astopb"


def by_hand(pieces: list[str], words: list[str], min_tokens: int) -> str:
    """The text, cut before the first stop string that is complete after `min_tokens` pieces."""
    text = ""
    for number, piece in enumerate(pieces, 1):
        before, text = len(text), text + piece
        ends = range(before + 1, len(text) + 1) if number >= min_tokens else ()
        starts = [e - len(w) for w in words for e in ends if text[:e].endswith(w)]
        if starts:
            return text[: min(starts)]
    return text


@given(PIECES, WORDS, st.integers(0, 6), st.integers(1, 4))
def test_a_stop_string_may_begin_before_min_tokens_but_not_end(
    pieces: list[str], words: list[str], min_tokens: int, step: int
) -> None:
    assert answer(pieces, words, step, min_tokens)[-1] == by_hand(pieces, words, min_tokens)


@pytest.mark.parametrize("word", ["<|e|>", "b<|e|>", "<|e|>c", "b<|e|>c", "ab<|e|>cd"])
@pytest.mark.parametrize("step", [1, 4])
def test_a_stop_word_with_a_special_token_stops_and_is_cut_from_the_text(
    word: str, step: int
) -> None:
    pieces = ["a", "b", "<|e|>", "c", "d", "e"]
    text = "".join(pieces).partition(word)[0]
    assert answer(pieces, [word], step)[-1] == text
    assert answer(pieces, [word], step, skip=False)[-1] == text


def test_what_could_begin_a_mixed_stop_word_waits() -> None:
    assert answer(["x", "ab", "<|e|>", "c"], ["ab<|e|>"], 1) == ["x", "x", "x"]
    assert answer(["x", "ab", "c", "d"], ["ab<|e|>"], 1) == ["x", "x", "xabc", "xabcd", "xabcd"]


def test_the_letters_of_a_special_token_stop_too_where_they_are_no_token() -> None:
    assert answer(["x<|", "e|", "> y"], ["<|e|>"], 1)[-1] == "x"


def test_a_special_token_does_not_hide_a_stop_word() -> None:
    assert answer(["a", "b", "<S>", "c"], ["bc"], 1)[-1] == "a"
    assert answer(["a", "b", "<S>", "c"], ["bc"], 1, skip=False)[-1] == "ab<S>c"


def test_special_tokens_are_looked_for_only_where_a_word_holds_one() -> None:
    vocabulary: Any = Pieces(["a", "<S>"])
    assert StopMatcher(vocabulary, ["a", "S>"])._shown is None
    assert StopMatcher(vocabulary, ["a", "<S>"])._shown is not None
    assert StopMatcher(vocabulary, ["<S>"], skip_special_tokens=False)._shown is None


MIXED = st.lists(st.one_of(st.text("abS>", max_size=3), st.sampled_from(SPECIAL)), max_size=12)
MIXED_WORDS = st.lists(
    st.lists(st.one_of(st.text("abS>", max_size=2), st.sampled_from(SPECIAL)), max_size=3)
    .map("".join)
    .filter(bool),
    min_size=1,
    max_size=3,
)


def ends(text: str, old: int, word: str) -> list[int]:
    """Where a word begins that ends after the first `old` characters."""
    at = range(old + 1, len(text) + 1)
    return [end - len(word) for end in at if text[:end].endswith(word)]


def first_match(
    pieces: list[str], words: list[str], min_tokens: int, bad_words: tuple[str, ...], skip: bool
) -> str:
    """The visible text before the first word, in the plainest way."""
    visible, shown = "", ""
    before = [0]  # visible characters before each place of the shown text
    hidden = {piece for piece in SPECIAL if piece in pieces} if skip else set()
    for number, piece in enumerate(pieces, 1):
        old, old_shown = len(visible), len(shown)
        visible += "" if piece in hidden else piece
        shown += piece
        before += [old if piece in hidden else old + at + 1 for at in range(len(piece))]
        before[-1] = len(visible)
        late = [*(words if number >= min_tokens else ()), *bad_words]
        places = [at for word in late for at in ends(visible, old, word)]
        special = [word for word in late if any(piece in word for piece in hidden)]
        places += [before[at] for word in special for at in ends(shown, old_shown, word)]
        if places:
            return visible[: min(places)]
    return visible


@settings(max_examples=examples(500))
@given(MIXED, MIXED_WORDS, st.booleans(), st.integers(0, 5), st.integers(1, 4), st.booleans())
def test_the_visible_text_is_the_one_before_the_first_match_whatever_is_shown(
    pieces: list[str], words: list[str], skip: bool, min_tokens: int, step: int, bad: bool
) -> None:
    """Text, special tokens and both as words; nothing that was seen is taken back."""
    bad_words = tuple(words[1:]) if bad else ()
    stop_words = words[:1] if bad else words
    seen = answer(pieces, stop_words, step, min_tokens, bad_words, skip)
    assert seen[-1] == first_match(pieces, stop_words, min_tokens, bad_words, skip)
    for earlier, later in itertools.pairwise(seen):
        assert later.startswith(earlier)
