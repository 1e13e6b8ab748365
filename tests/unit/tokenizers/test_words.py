"""Stop and bad words: read from a request, turned into ids that match what models produce."""

import numpy as np
import pytest

from support.tokenizer_folders import Folders, Loaded, slow_where_large
from trellis.tokenizers import TokenizerError, load, parse_words, to_word_list


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([""], []),
        ([], []),
        ([[""]], []),
        ([b""], []),
        (["", ""], []),
        (["</s>", "User:"], ["</s>", "User:"]),
        ([b"</s>", b"User:"], ["</s>", "User:"]),
        ([["</s>", "User:", ""]], ["</s>", "User:"]),
        (["안녕, 세계", "b"], ["안녕, 세계", "b"]),
        # one string of values, as TensorRT-LLM 0.5.0 took it
        (["</s>,User:"], ["</s>", "User:"]),
        ([b" I am happy, I am sad"], [" I am happy", " I am sad"]),
        ([" a, b,"], [" a", " b"]),
        (['"a,b",c'], ["a,b", "c"]),
        (['"a,b"'], ["a,b"]),
        (['"say ""hi"", now",c'], ['say "hi", now', "c"]),
        (["\n,User:"], ["\n", "User:"]),
        # one word, which has a comma in it
        ([","], [","]),
        ([", and"], [", and"]),
        (["Hello,"], ["Hello,"]),
        (["a,b", ""], ["a,b"]),
        # one word without a comma is never cut or unquoted
        (['"'], ['"']),
        (['"a"'], ['"a"']),
        (["\n\n"], ["\n\n"]),
        ([" "], [" "]),
    ],
)
def test_words_of_a_request(raw: list[object], words: list[str]) -> None:
    assert parse_words(raw) == words
    assert parse_words(np.array(raw, dtype=object)) == words


def test_a_word_that_is_no_text_is_an_error_that_shows_it() -> None:
    with pytest.raises(TokenizerError, match=r"not UTF-8: b'\\xff'"):
        parse_words([b"ok", b"\xff"])
    with pytest.raises(TokenizerError, match="must be text, not int: 7"):
        parse_words([7])


def test_word_list_has_ids_above_and_ends_below() -> None:
    made = to_word_list([[2], [11338, 25], [7]])
    assert made.dtype == np.int32
    assert made.tolist() == [[2, 11338, 25, 7], [1, 3, 4, -1]]
    assert to_word_list([[5, 6]]).tolist() == [[5, 6], [2, -1]]


def test_no_words_are_one_zero_and_one_minus_one() -> None:
    assert to_word_list([]).tolist() == [[0], [-1]]
    assert to_word_list([[], []]).tolist() == [[0], [-1]]


NAMES = ("gpt2", "smollm2", "llama", "llama3", "mistral3", "tekken", "t5")


@pytest.mark.parametrize("name", [slow_where_large(name) for name in NAMES])
def test_words_match_where_they_appear_in_a_text(name: str, loaded: Loaded) -> None:
    tokenizer = loaded[name]
    words = ["the", "fox"] if name == "t5" else ["User", "stop", "Observation:", "the"]
    for word in words:
        sequences = tokenizer.word_ids(word)
        for text in (f"x\n{word} y", f"It said {word} y"):
            ids = tokenizer.encode(text)
            assert any(contains(ids, each) for each in sequences), (word, text)


@pytest.mark.parametrize(
    "name", [slow_where_large(name) for name in ["gpt2", "llama", "llama3", "mistral3", "tekken"]]
)
def test_words_never_hold_bos_and_decode_to_the_word(name: str, loaded: Loaded) -> None:
    tokenizer = loaded[name]
    for word in ["User:", " User:", "\n", "\n\n", "###", "안녕", "😀", "a b", "  x"]:
        sequences = tokenizer.word_ids(word)
        assert sequences
        for ids in sequences:
            assert tokenizer.bos_id is None or name == "gpt2" or tokenizer.bos_id not in ids
            decoder = tokenizer.stream_decoder()
            decoder.prime(tokenizer.encode("x"))
            assert decoder.push(ids) in (word, " " + word)


def test_a_line_break_is_no_prefix_space_and_a_line_break(loaded: Loaded) -> None:
    assert loaded["llama"].word_ids("\n") == [[13]]
    assert loaded["llama"].word_ids("</s>") == [[2]]
    assert loaded["llama"].word_ids("hello") == [[21558], [6312, 28709]]
    assert loaded["gpt2"].word_ids("stop") == [[11338], [2245]]
    assert loaded["gpt2"].word_ids("<|endoftext|>") == [[50256]]


@pytest.mark.slow
def test_options_for_prompts_do_not_reach_words(folders: Folders) -> None:
    plain = load("gpt2", folders["gpt2"])
    with_bos = load("gpt2", folders["gpt2"], {"add_bos_token": "true"})
    assert plain.word_ids("stop") == with_bos.word_ids("stop")
    letters = load("llama", folders["llama"], {"parse_special_tokens": "false"})
    assert letters.word_ids("</s>") == [[2]]


def test_the_empty_word_has_no_ids(loaded: Loaded) -> None:
    for name in ("gpt2", "llama", "t5"):
        assert loaded[name].word_ids("") == []


def contains(ids: list[int], part: list[int]) -> bool:
    return any(ids[at : at + len(part)] == part for at in range(len(ids)))
