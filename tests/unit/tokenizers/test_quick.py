# SPDX-License-Identifier: Apache-2.0
"""Prompts are encoded sooner, by another library, with the same ids or not at all."""

import json
import logging
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers

from support.fuzzed_texts import line, long_line
from support.hypothesis_profiles import examples
from support.made_vocabularies import PATTERNS, ids_or_panic, make
from support.panicking import panicking_document
from support.tokenizer_folders import TYPE_OF, Folders, Loaded, slow_where_large
from trellis.panics import Panicked, guarded
from trellis.tokenizers import TokenizerError, load, quick
from trellis.tokenizers.encoder import BackendEncoder
from trellis.tokenizers.fast import FastTokenizer
from trellis.tokenizers.quick import QuickEncoder, shortened
from trellis.tokenizers.quick_kinds import differs_on, first_difference, why_not

pytest.importorskip("fastokens")

QUICK = ["gpt2", "gpt2_json", "smollm2", "llama3", "llama4", "qwen", "qwen36", "tekken"]
SEEDS = st.integers(0, 1 << 32)
DOUBLED_WHITE_SPACE = 278
"""The number of a vocabulary whose added token of two line ends takes those after it along."""


def encoder_of(tokenizer: object) -> QuickEncoder:
    assert isinstance(tokenizer, FastTokenizer)
    encoder = tokenizer._encoder
    assert isinstance(encoder, QuickEncoder)
    return encoder


@pytest.fixture(scope="module")
def gpt2(loaded: Loaded) -> FastTokenizer:
    tokenizer = loaded["gpt2"]
    tokenizer.prepare()
    assert encoder_of(tokenizer).wait()
    assert isinstance(tokenizer, FastTokenizer)
    return tokenizer


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "trellis.tokenizers")
    return caplog


@pytest.mark.parametrize("parse", ["true", "false"])
@pytest.mark.parametrize("name", [slow_where_large(name) for name in QUICK])
def test_a_real_vocabulary_has_the_same_ids(
    folders: Folders, corpus_lines: list[str], name: str, parse: str
) -> None:
    tokenizer = load(TYPE_OF[name], folders[name], {"parse_special_tokens": parse})
    encoder = encoder_of(tokenizer)
    encoder.prepare()
    assert encoder.wait()
    added = [letters.decode() for letters in tokenizer.special_tokens.values()][:40]
    rng = random.Random(name)
    lines = [*corpus_lines, *(line(rng, added) for _ in range(500)), long_line(rng, added)]
    slow = BackendEncoder(encoder._backend)
    expected = slow.encode_batch(lines)
    assert [encoder.encode_batch([text])[0] for text in lines] == expected
    assert encoder.encode_batch(lines) == expected
    assert encoder._quick is not None


@settings(max_examples=examples(400))
@given(SEEDS)
@example(DOUBLED_WHITE_SPACE)
@example(1000530)
@example(34320900)
@example(1004901)
def test_a_made_up_vocabulary_has_the_same_ids_or_is_left_alone(seed: int) -> None:
    made = make(seed)
    encoder = QuickEncoder(made.backend)
    encoder.prepare()
    encoder.wait()
    rng = random.Random(seed)
    slow = BackendEncoder(made.backend)
    for _ in range(60):
        text = line(rng, made.added)
        assert ids_or_panic(encoder, text) == ids_or_panic(slow, text)


def test_a_text_that_tokenizers_panics_at_is_told_as_a_panic() -> None:
    made = make(DOUBLED_WHITE_SPACE)
    encoder = QuickEncoder(made.backend)
    encoder.prepare()
    assert not encoder.wait()
    with pytest.raises(Panicked, match="AddedVocabulary bad split"):
        guarded(encoder.encode_batch, ["[X]\n\n\n"])
    assert encoder.encode_batch(["[X]\n\n"]) == BackendEncoder(made.backend).encode_batch(
        ["[X]\n\n"]
    )


def test_most_made_up_vocabularies_are_encoded_sooner() -> None:
    reasons = [why_not(make(seed).backend) for seed in range(60)]
    assert 25 < reasons.count("") < 60


def test_until_the_library_is_open_the_other_one_encodes(folders: Folders) -> None:
    tokenizer = load("gpt2", folders["gpt2"])
    encoder = encoder_of(tokenizer)
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert not encoder._begun
    text = "Hello world. " * 400
    before = tokenizer.encode(text)
    assert encoder.wait()
    assert tokenizer.encode(text) == before


@pytest.mark.parametrize("letter", ["\u017f", "\u180e"])
@pytest.mark.parametrize("name", [slow_where_large("llama4"), "gpt2"])
def test_a_character_that_the_two_take_for_another_goes_to_the_reference(
    loaded: Loaded, name: str, letter: str
) -> None:
    encoder = encoder_of(loaded[name])
    encoder.prepare()
    assert encoder.wait()
    slow = BackendEncoder(encoder._backend)
    for text in (f"N'{letter}'st", f"  {letter}x", f" {letter}", f"a{letter}b"):
        assert differs_on(text)
        assert encoder.encode_batch([text]) == slow.encode_batch([text])


def test_a_lone_surrogate_is_told_as_ever(gpt2: FastTokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"text 0 has a lone surrogate, '\\ud800', at 1"):
        gpt2.encode("a\ud800")
    with pytest.raises(TokenizerError, match="text 1 must be a string, not int"):
        gpt2.encode_batch(["a", 5])  # type: ignore[list-item]


def test_a_panic_ends_nothing_and_closes_the_library(logged: pytest.LogCaptureFixture) -> None:
    document = panicking_document(json.loads(make(1).backend.to_str()))
    panicking = tokenizers.Tokenizer.from_str(json.dumps(document))

    class Panicking:
        """As fastokens would: at a text that begins with q."""

        def encode(self, text: str, *_: object) -> tokenizers.Encoding:
            return panicking.encode(text, add_special_tokens=False)

    encoder = QuickEncoder(make(1).backend)
    encoder.prepare()
    encoder.wait()
    encoder._thread = encoder._thread or ThreadPoolExecutor(1)
    encoder._quick = Panicking()
    slow = BackendEncoder(make(1).backend)
    assert encoder.encode_batch(["abc"]) == slow.encode_batch(["abc"])
    assert encoder._quick is not None
    assert encoder.encode_batch(["quit"]) == slow.encode_batch(["quit"])
    assert encoder._quick is None
    assert "tokenizers encodes prompts: fastokens panicked" in logged.text


def test_a_brief_text_does_not_wait_for_a_long_one(gpt2: FastTokenizer) -> None:
    encoder = encoder_of(gpt2)
    with encoder._lock:  # as while a long one is encoded
        assert gpt2.encode("Hello world") == [15496, 995]


def test_a_long_text_does_not_wait_for_all_of_a_longer_one(gpt2: FastTokenizer) -> None:
    encoder = encoder_of(gpt2)
    text = "Hello world. " * 3000
    expected = encoder.encode_batch([text])
    with ThreadPoolExecutor(1) as pool, encoder._lock:  # as while a longer one is encoded
        assert pool.submit(encoder.encode_batch, [text]).result(20) == expected


def test_threads_share_it(gpt2: FastTokenizer) -> None:
    texts = [line(random.Random(seed)) * 20 for seed in range(40)]
    expected = BackendEncoder(gpt2.backend).encode_batch(texts)
    got: dict[int, list[list[int]]] = {}

    def work(number: int) -> None:
        got[number] = [gpt2.encode_bare(text) for text in texts]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(got.values()) == [expected] * 4


def test_its_thread_is_replaced_with_what_it_keeps(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "_KEPT", 100)
    encoder = encoder_of(load("gpt2", folders["gpt2"]))
    encoder.prepare()
    assert encoder.wait()
    first = encoder._thread
    text = "Hello world. " * 20
    ids = encoder.encode_batch([text, text])
    assert encoder._thread is not first
    assert encoder.encode_batch([text, text]) == ids


def test_its_thread_is_replaced_when_a_text_took_long(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(load("gpt2", folders["gpt2"]))
    encoder.prepare()
    assert encoder.wait()
    first = encoder._thread
    encoder.encode_batch(["Hello world. " * 200])
    assert encoder._thread is first
    monkeypatch.setattr(quick, "_DEAR", 0.0)
    encoder.encode_batch(["Hello world. " * 200])
    assert encoder._thread is not first


@pytest.mark.parametrize(
    "letters", ["abcdefghijklmnopqrstuvwxyz", "가나다라마바사아자차카타", "!#%&*+-./:;<=>?@^_"]
)
def test_a_long_text_of_very_many_words_goes_to_tokenizers(
    gpt2: FastTokenizer, monkeypatch: pytest.MonkeyPatch, letters: str
) -> None:
    """Whose words fastokens would take longer for with each: 70,000 took it seven times as long."""
    rng = random.Random(letters)
    text = " ".join("".join(rng.choices(letters, k=6)) for _ in range(30_000))
    encoder = encoder_of(gpt2)

    def unused(*_: object) -> None:
        raise AssertionError("it is asked")

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "_encode_in_thread", unused)
        expected = BackendEncoder(gpt2.backend).encode_batch([text])
        assert encoder.encode_batch([text]) == expected


def test_a_long_text_of_a_language_does_not(gpt2: FastTokenizer, corpus_lines: list[str]) -> None:
    words = sorted({word for each in corpus_lines for word in each.split() if word.isascii()})
    rng = random.Random(3)
    often = [rng.paretovariate(1.0) for _ in words]  # as Zipf says
    text = " ".join(rng.choices(words, often, k=60_000))
    assert not quick._too_many_words([text], len(text))


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)


def test_without_the_package_a_line_says_so(
    no_package: None, folders: Folders, logged: pytest.LogCaptureFixture
) -> None:
    tokenizer = load("gpt2", folders["gpt2"])
    tokenizer.prepare()
    tokenizer.prepare()
    assert not encoder_of(tokenizer).wait()
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert logged.text.count("tokenizers encodes prompts: the package fastokens is missing") == 1


def test_the_environment_keeps_it_out(
    folders: Folders, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(quick.ENCODER, "tokenizers")
    tokenizer = load("gpt2", folders["gpt2"])
    tokenizer.prepare()
    assert not encoder_of(tokenizer).wait()
    assert "tokenizers encodes prompts: TRELLIS_ENCODER says so" in logged.text


def test_the_log_says_which_one_encodes(folders: Folders, logged: pytest.LogCaptureFixture) -> None:
    tokenizer = load("gpt2", folders["gpt2"])
    tokenizer.prepare()
    assert encoder_of(tokenizer).wait()
    assert "fastokens encodes prompts" in logged.text


def test_other_ids_on_the_corpus_are_found(gpt2: FastTokenizer) -> None:
    import fastokens

    other = make(3).backend
    opened = fastokens.Tokenizer.from_json_str(other.to_str())
    slow = BackendEncoder(gpt2.backend).encode_batch
    assert first_difference(slow, opened, gpt2.backend) is not None
    own = fastokens.Tokenizer.from_json_str(gpt2.backend.to_str())
    assert first_difference(slow, own, gpt2.backend) is None


@settings(max_examples=examples(400))
@given(st.lists(st.tuples(*[st.text('ab",[]\\Ġ:n', min_size=1, max_size=6)] * 2), max_size=5))
def test_merges_are_shortened_to_the_same_merges(pairs: list[tuple[str, str]]) -> None:
    model = {"vocab": {'"merges":[': 1, '["a","b"]': 2}, "merges": pairs}
    document = json.dumps({"added_tokens": ['["a","b"]'], "model": model}, separators=(",", ":"))
    assert json.loads(shortened(document)) == {
        "added_tokens": ['["a","b"]'],
        "model": {**model, "merges": [" ".join(pair) for pair in pairs]},
    }


def test_merges_of_tokens_with_spaces_stay_as_they_are() -> None:
    document = '{"model":{"merges":[["a b","c"]]}}'
    assert shortened(document) == document


def backend_with(**parts: Any) -> tokenizers.Tokenizer:
    """A vocabulary that may be encoded sooner, but for these parts."""
    seed = next(seed for seed in range(99) if not why_not(make(seed).backend))
    backend = make(seed).backend
    for name, part in parts.items():
        setattr(backend, name, part)
    return backend


def split(pattern: str, behavior: str = "isolated") -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut = pre_tokenizers.Split(Regex(pattern), behavior, False)
    return pre_tokenizers.Sequence([cut, byte_level])


LEFT_ALONE: dict[str, dict[str, Any]] = {
    "normalizer is Lowercase": {"normalizer": normalizers.Lowercase()},
    "normalizer is NFC, Strip": {
        "normalizer": normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    },
    "pre-tokenizer is Metaspace, not ByteLevel": {"pre_tokenizer": pre_tokenizers.Metaspace()},
    "puts a space before": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
    "a pattern that was not compared": {"pre_tokenizer": split(r"\w+|\W")},
    "drops or joins words": {"pre_tokenizer": split(PATTERNS[0], "removed")},
}


@pytest.mark.parametrize("reason", LEFT_ALONE)
def test_a_step_that_was_not_compared_is_left_alone(reason: str) -> None:
    assert reason in why_not(backend_with(**LEFT_ALONE[reason]))


ADDED = {
    "takes white space along, and '\\n\\n' is": [
        AddedToken("<x>", rstrip=True),
        AddedToken("\n\n", normalized=False),
    ],
    "'_x_' must be a word of its own": [AddedToken("_x_", single_word=True)],
    "'_x_' overlaps": [AddedToken("_x_", normalized=True), AddedToken("x_y", normalized=False)],
}


@pytest.mark.parametrize("reason", ADDED)
def test_added_tokens_that_meet_are_left_alone(reason: str) -> None:
    backend = backend_with()
    backend.add_tokens(ADDED[reason])
    assert reason in why_not(backend)


def test_a_unigram_model_is_left_alone(loaded: Loaded) -> None:
    tokenizer = loaded["t5"]
    assert isinstance(tokenizer, FastTokenizer)
    assert "Unigram, not BPE" in why_not(tokenizer.backend)
