"""Streams: for any ids, cut anywhere, the chunks joined are the text of it all at once."""

import codecs
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.tokenizer_folders import Folders, Loaded
from trellis.tokenizers import Tokenizer, load
from trellis.tokenizers.registry import type_module
from trellis.tokenizers.stream import Leading
from unit.tokenizers.test_reference import tiktoken_gpt2

NAMES = ["gpt2", "smollm2", "llama", "mistral3", "llama3", "tekken", "t5"]
quick = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SCRIPTS = [
    (0x20, 0x7E), (0xC0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x64A),
    (0x900, 0x97F), (0xE01, 0xE5B), (0x10A0, 0x10FF), (0x1780, 0x17FF), (0x3041, 0x30FF),
    (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x1F3FB, 0x1F3FF), (0xFFFD, 0xFFFD),
    (0x200D, 0x200D), (0x20000, 0x2A6DF),
]  # fmt: skip
letters = st.one_of([st.integers(low, high).map(chr) for low, high in SCRIPTS])
texts = st.lists(letters, max_size=40).map("".join)


def id_lists(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Random ids, ids of text, single bytes and special tokens, in any order."""
    size = tokenizer.vocab_size
    odd = [i for i in range(size) if i < 300 or i > size - 30]
    parts = st.one_of(
        st.lists(st.integers(0, size - 1), max_size=8),
        st.lists(st.sampled_from(odd), max_size=12),
        texts.map(tokenizer.encode),
    )
    return st.lists(parts, max_size=5).map(lambda lists: [i for each in lists for i in each])


def cut(ids: list[int], rng: random.Random) -> list[list[int]]:
    chunks, at = [], 0
    while at < len(ids):
        size = rng.choice([1, 1, 1, 2, 3, 10])
        chunks.append(ids[at : at + size])
        at += size
    return chunks


@pytest.mark.parametrize("skip", ["true", "false"])
@pytest.mark.parametrize("name", NAMES)
def test_joined_chunks_are_the_whole_text_at_every_moment(
    name: str, skip: str, loaded: Loaded, options_loaded: Any
) -> None:
    tokenizer = options_loaded(name, skip)

    @quick
    @given(id_lists(tokenizer), st.randoms(use_true_random=False))
    def check(ids: list[int], rng: random.Random) -> None:
        decoder = tokenizer.stream_decoder()
        given_out, seen = "", 0
        for chunk in cut(ids, rng):
            text = decoder.push(chunk)
            text.encode()  # whole characters: no surrogate halves
            given_out += text
            seen += len(chunk)
            assert given_out == tokenizer.decode(ids[:seen])
        assert given_out + decoder.end() == tokenizer.decode(ids)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_text_is_the_tokens_bytes_read_as_utf_8(name: str, loaded: Loaded) -> None:
    tokenizer = loaded[name]

    @quick
    @given(id_lists(tokenizer))
    def check(ids: list[int]) -> None:
        parts = [part for token in ids if (part := tokenizer.token_bytes(token))]
        if parts and tokenizer.leading is Leading.FIRST_TOKEN:
            parts[0] = parts[0].lstrip(b" ")
        data = b"".join(parts)
        reader = codecs.getincrementaldecoder("utf-8")(tokenizer.decode_errors)
        expected = reader.decode(data)
        if tokenizer.leading is Leading.ONE:
            expected = expected.removeprefix(" ")
        elif tokenizer.leading is Leading.ALL:
            expected = expected.lstrip(" ")
        assert tokenizer.decode(ids) == expected

    check()


@quick
@given(data=st.data())
def test_gpt2_equals_tiktoken_for_any_ids(data: st.DataObject, loaded: Loaded) -> None:
    reference = tiktoken_gpt2_once()
    ids = data.draw(st.lists(st.integers(0, 50_255), max_size=30))
    whole = b"".join(reference.decode_single_token_bytes(token) for token in ids)
    expected, used = codecs.utf_8_decode(whole, "replace", False)
    assert loaded["gpt2"].decode(ids) == expected
    if used == len(whole):
        assert expected == reference.decode(ids)


@quick
@given(data=st.data())
def test_gpt2_equals_the_tokenizers_library_for_any_ids(
    data: st.DataObject, loaded: Loaded
) -> None:
    tokenizer = loaded["gpt2"]
    ids = data.draw(id_lists(tokenizer))
    ids += tokenizer.encode(" end")[-1:]  # so that no bytes are left incomplete
    theirs = tokenizer.backend.decode(ids, skip_special_tokens=True)  # type: ignore[attr-defined]
    assert tokenizer.decode(ids) == theirs


@quick
@given(data=st.data())
def test_llama_equals_sentencepiece_for_any_ids(
    data: st.DataObject, loaded: Loaded, folders: Folders
) -> None:
    reference = sentencepiece_once(str(folders["llama"] / "tokenizer.model"))
    ids = data.draw(st.lists(st.one_of(st.integers(3, 258), st.integers(3, 31_999)), max_size=30))
    ids = [22_557, *ids, 22_557]  # begins with a word's piece, and leaves no bytes incomplete
    assert loaded["llama"].decode(ids) == reference.decode(ids)


def test_llama_replaces_invalid_bytes_as_sentencepiece_and_not_as_tokenizers(
    loaded: Loaded, folders: Folders
) -> None:
    llama = loaded["llama"]
    euro_then_stray = [3 + byte for byte in "€".encode()] + [3 + 0x82] + [28_747]
    reference = sentencepiece_once(str(folders["llama"] / "tokenizer.model"))
    assert reference.decode(euro_then_stray) == "€\ufffd:"
    assert llama.decode(euro_then_stray) == "€\ufffd:"
    # The library replaces the whole run, the good character too: a stream has given it out by then.
    theirs = llama.backend.decode(euro_then_stray)  # type: ignore[attr-defined]
    assert theirs == "\ufffd\ufffd\ufffd\ufffd:"


def test_bytes_still_incomplete_at_the_end_are_dropped_in_both_modes(loaded: Loaded) -> None:
    for name in ("gpt2", "llama"):
        tokenizer = loaded[name]
        ids = tokenizer.encode("ab 😀")[:-1]
        decoder = tokenizer.stream_decoder()
        assert decoder.push(ids) + decoder.end() == tokenizer.decode(ids) == "ab "


def test_a_prompt_tail_inside_a_character_is_completed_by_the_answer(loaded: Loaded) -> None:
    for name in ("gpt2", "llama"):
        tokenizer = loaded[name]
        ids = tokenizer.encode("ab 😀 c")
        for at in range(1, len(ids) + 1):
            decoder = tokenizer.stream_decoder()
            decoder.prime(ids[:at])
            whole = tokenizer.decode(ids)
            assert tokenizer.decode(ids[:at]) + decoder.push(ids[at:]) == whole


def test_a_first_space_goes_once_and_stays_after_a_prompt(loaded: Loaded) -> None:
    llama = loaded["llama"]
    decoder = llama.stream_decoder()
    assert [decoder.push([t]) for t in [1, 28_705, 28_705, 22_557]] == ["", "", " ", " Hello"]
    decoder = llama.stream_decoder()
    decoder.prime(llama.encode("What is"))
    assert decoder.push([272]) == " the"
    assert llama.decode([272]) == "the"


def test_a_replacement_character_in_the_text_is_not_waited_for(loaded: Loaded) -> None:
    for name in ("gpt2", "llama", "llama3"):
        tokenizer = loaded[name]
        decoder = tokenizer.stream_decoder()
        assert decoder.push(tokenizer.encode("a\ufffd")) == "a\ufffd"
        assert decoder.push(tokenizer.encode_fragment("b")) == "b"


def test_ids_that_the_vocabulary_lacks_have_no_text(loaded: Loaded) -> None:
    for name in NAMES:
        tokenizer = loaded[name]
        ids = [-1, tokenizer.vocab_size, 2**31 - 1]
        assert tokenizer.decode(ids) == ""
        good = tokenizer.encode("ok")
        assert tokenizer.decode([*good, *ids]) == "ok"


def test_ids_may_be_any_iterable_of_integers(loaded: Loaded) -> None:
    import numpy as np

    for name in ("gpt2", "llama"):
        tokenizer = loaded[name]
        ids = tokenizer.encode("naïve 😀")
        assert (
            tokenizer.decode(iter(ids)) == tokenizer.decode(np.array(ids, np.int32)) == "naïve 😀"
        )
        assert tokenizer.decode([]) == ""


def test_a_tokenizer_written_in_python_streams_through_its_own_decode(
    tmp_path: Path, corpus_lines: list[str]
) -> None:
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(tmp_path)
    tokenizer = load("auto", tmp_path)
    assert type(tokenizer).__name__ == "PythonTokenizer"
    reference = ByT5Tokenizer()
    for line in [x for x in corpus_lines[::25] if "\ufffd" not in x]:
        ids = tokenizer.encode(line)
        assert ids == reference.encode(line)
        decoder = tokenizer.stream_decoder()
        given_out = [decoder.push([token]) for token in ids]
        assert "".join(given_out) + decoder.end() == line
        assert tokenizer.decode(ids) == line
    decoder = tokenizer.stream_decoder()
    assert [decoder.push([3 + byte]) for byte in "é€".encode()] == ["", "é", "", "", "€"]


def test_the_ten_thousandth_token_costs_what_the_tenth_did(loaded: Loaded) -> None:
    for name in ("gpt2", "llama"):
        tokenizer = loaded[name]
        ids = (tokenizer.encode("Быстрая 안녕 quick 😀 brown ")[1:] * 3_000)[:20_000]

        def cost(decoder: Any, part: list[int]) -> float:
            start = time.perf_counter()
            for token in part:
                decoder.push([token])
            return time.perf_counter() - start

        tokenizer.decode(ids)
        ratios = []
        for _ in range(5):
            decoder = tokenizer.stream_decoder()
            early = cost(decoder, ids[:2_000])
            decoder.push(ids[2_000:18_000])
            ratios.append(cost(decoder, ids[18_000:]) / early)
        assert min(ratios) < 1.5, ratios


def test_a_stream_costs_a_fifth_of_decoding_it_all_again_at_each_token(
    loaded: Loaded, folders: Folders
) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folders["gpt2_json"])
    tokenizer = loaded["gpt2"]
    ids = tokenizer.encode("안녕 Быстрая quick brown fox " * 50)[:400]

    def ours() -> str:
        decoder = tokenizer.stream_decoder()
        return "".join([decoder.push([token]) for token in ids])

    def theirs() -> str:
        return [str(reference.decode(ids[:end])) for end in range(1, len(ids) + 1)][-1]

    taken = []
    for call in (ours, theirs):
        assert call().startswith("안녕")
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    assert taken[0] * 5 < taken[1]


@pytest.fixture(scope="module")
def options_loaded(folders: Folders) -> Any:
    from support.tokenizer_folders import TYPE_OF

    made: dict[tuple[str, str], Tokenizer] = {}

    def get(name: str, skip: str) -> Tokenizer:
        if (name, skip) not in made:
            options = {"skip_special_tokens": skip}
            made[name, skip] = load(TYPE_OF[name], folders[name], options)
        return made[name, skip]

    return get


_ONCE: dict[str, Any] = {}


def tiktoken_gpt2_once() -> Any:
    if "tiktoken" not in _ONCE:
        _ONCE["tiktoken"] = tiktoken_gpt2()
    return _ONCE["tiktoken"]


def sentencepiece_once(path: str) -> Any:
    import sentencepiece

    if path not in _ONCE:
        _ONCE[path] = sentencepiece.SentencePieceProcessor(model_file=path)
    return _ONCE[path]


class Canine:
    """What `auto` needs of a tokenizer written in Python: a letter is its code point's bytes."""

    bos_token_id = eos_token_id = pad_token_id = None
    all_special_ids: tuple[int, ...] = ()
    all_special_tokens: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 256

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int], **options: bool) -> str:
        return bytes(ids).decode(errors="replace")


@given(st.text("aé€😀\ufffd", max_size=12), st.randoms(use_true_random=False))
def test_a_tokenizer_in_python_streams_its_own_text_to_the_end(
    text: str, rng: random.Random
) -> None:
    python_tokenizer = type_module("auto").PythonTokenizer
    tokenizer = python_tokenizer(Canine(), None, True, True)
    ids = tokenizer.encode(text)
    decoder = tokenizer.stream_decoder()
    streamed = "".join([decoder.push(chunk) for chunk in cut(ids, rng)]) + decoder.end()
    assert streamed == tokenizer.decode(ids) == text
