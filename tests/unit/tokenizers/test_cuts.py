# SPDX-License-Identifier: Apache-2.0
"""Texts are cut only where their parts' ids, joined, are the ids of the whole text."""

import re
from collections.abc import Sequence

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from support.hypothesis_profiles import examples
from trellis.tokenizers.cuts import MOST, acts_by_piece, cut_tokens, holds
from trellis.tokenizers.encoder import BackendEncoder

LETTERS = "<|>ab_ \n"


@st.composite
def one_added_token(draw: st.DrawFn) -> AddedToken:
    """Any that the library can stand.

    It panics at a token of white space that takes more of it (`lstrip`) behind one that took it
    already, and at a `normalized` one of which a normalizer leaves nothing it never ends
    (test_wrong_types.py).
    """
    content = draw(st.text(LETTERS, min_size=1, max_size=4))
    blank = not content.strip()
    return AddedToken(
        content,
        single_word=draw(st.booleans()),
        lstrip=not blank and draw(st.booleans()),
        rstrip=draw(st.booleans()),
        normalized=not blank and draw(st.booleans()),
        special=draw(st.booleans()),
    )


added_tokens = one_added_token()
pre_tokenizer_kinds = st.sampled_from(
    [
        pre_tokenizers.Metaspace("▁", "first", False),
        pre_tokenizers.Metaspace("▁", "always", True),
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits()]),
    ]
)
normalizer_kinds = st.sampled_from(
    [
        normalizers.Prepend("▁"),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()]),
        normalizers.Replace("ab", "b"),
        normalizers.Lowercase(),
    ]
)


def backend_of(added: Sequence[AddedToken]) -> tokenizers.Tokenizer:
    """A tokenizer whose vocabulary is letters, so that every letter's place shows in the ids."""
    letters = [*LETTERS, "▁", "Ġ", "Ċ", "[UNK]"]
    vocab = {letter: token for token, letter in enumerate(letters)}
    vocab |= {"ab": len(vocab), "▁a": len(vocab) + 1, "a<": len(vocab) + 2}
    merges = [("a", "b"), ("▁", "a"), ("a", "<")]
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="[UNK]"))
    backend.add_tokens(list(added))
    return backend


@settings(max_examples=examples(4_000), deadline=None)
@given(
    st.lists(added_tokens, min_size=1, max_size=6, unique_by=lambda token: token.content),
    pre_tokenizer_kinds,
    normalizer_kinds,
    st.booleans(),
    st.data(),
)
def test_any_added_tokens_with_any_options_are_cut_exactly_or_not_at_all(
    added: list[AddedToken],
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    normalizer: normalizers.Normalizer,
    parses_special: bool,
    data: st.DataObject,
) -> None:
    backend = backend_of(added)
    backend.pre_tokenizer = pre_tokenizer
    backend.normalizer = normalizer
    backend.encode_special_tokens = not parses_special
    encoder = BackendEncoder(backend, second_space=data.draw(st.booleans()))
    found = encoder.found_in_text()
    assert found is not None
    cuts = cut_tokens(found, parses_special)
    contents = [str(token.content) for token in added]
    piece = st.one_of(st.sampled_from(contents), st.text(LETTERS, max_size=3))
    for text in data.draw(st.lists(st.lists(piece, max_size=8).map("".join), max_size=5)):
        places = [m.start() for m in re.finditer("|".join(map(re.escape, cuts)) or "(?!)", text)]
        for place in places:
            before, after, whole = encoder.encode_batch([text[:place], text[place:], text])
            assert before + after == whole, (text, place, cuts)


def cuts_of(*added: AddedToken | str, parses_special: bool = True) -> tuple[str, ...]:
    tokens = [
        AddedToken(token, normalized=False, special=True) if isinstance(token, str) else token
        for token in added
    ]
    return cut_tokens(tokens, parses_special)


def test_a_chat_template_s_tokens_cut() -> None:
    assert cuts_of("<s>", "</s>", "<|im_end|>") == ("<s>", "</s>", "<|im_end|>")


@pytest.mark.parametrize(
    "other", ["<s>x", "x<s>", "x<", "<s><s>", ">a<", "x<s>y"], ids=lambda text: text
)
def test_a_token_that_another_may_overlap_does_not_cut(other: str) -> None:
    assert "<s>" not in cuts_of("<s>", other)


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("<s>", lstrip=True, normalized=False),
        AddedToken("<s>", single_word=True, normalized=False),
        AddedToken(" <s>", normalized=False),
        AddedToken("user", normalized=False),
        AddedToken("_s", normalized=False),
    ],
    ids=repr,
)
def test_a_token_that_looks_at_what_is_before_it_does_not_cut(token: AddedToken) -> None:
    assert cuts_of(token) == ()


def test_a_token_that_takes_the_space_behind_it_cuts() -> None:
    token = AddedToken("<|end|>", rstrip=True, normalized=False, special=True)
    assert cuts_of(token) == ("<|end|>",)


def test_special_tokens_that_are_letters_do_not_cut() -> None:
    think = AddedToken("<think>", normalized=False, special=False)
    assert cuts_of("<s>", think, parses_special=False) == ("<think>",)


def test_preferred_tokens_come_first_and_there_are_no_more_than_the_most() -> None:
    many = [AddedToken(f"<{index}>", normalized=False) for index in range(2 * MOST)]
    last = str(many[-1].content)
    cuts = cut_tokens(many, True, preferred=("<gone>", last))
    assert len(cuts) == MOST
    assert cuts[0] == last


def test_tokens_of_unusual_length_are_not_looked_for() -> None:
    assert cuts_of("<s>", "<" + "x" * 1_000) == ()


def test_a_step_that_nobody_knows_and_dropout_are_not_cut() -> None:
    backend = backend_of([])
    assert acts_by_piece(backend)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.FixedLength(3)]
    )
    assert not acts_by_piece(backend)
    assert BackendEncoder(backend).found_in_text() is None
    assert not acts_by_piece(tokenizers.Tokenizer(models.BPE(dropout=0.1)))


def test_the_corpus_finds_a_tokenizer_that_looks_across_a_cut() -> None:
    def ids(text: str) -> list[int]:
        return list(map(ord, text))

    def length_first(text: str) -> list[int]:
        return [len(text), *map(ord, text)]

    assert holds(ids, ["<s>", "</s>"])
    assert not holds(length_first, ["<s>", "</s>"])
