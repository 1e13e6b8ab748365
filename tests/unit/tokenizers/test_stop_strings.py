"""Stop strings with real vocabularies: the text ends before the first, wherever tokens end."""

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.tokenizer_folders import Folders
from trellis.pipeline.stop_strings import StopMatcher
from trellis.tokenizers import Tokenizer, load
from unit.tokenizers.test_stream import cut, id_lists

# tokenizer_type -> the folders of it that are tried.
FOLDERS = {
    "gpt2": ["gpt2", "smollm2"],
    "llama": ["llama", "llama_json"],
    "llama3": ["llama3"],
    "mistral": ["mistral3", "tekken"],
    "t5": ["t5"],
    "qwen": ["gpt2"],
    "auto": ["smollm2"],
}
CASES = [(kind, folder) for kind, names in FOLDERS.items() for folder in names]
quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_opened: dict[tuple[str, str], Tokenizer] = {}


@pytest.fixture(params=CASES, ids="-".join)
def tokenizer(request: pytest.FixtureRequest, folders: Folders) -> Tokenizer:
    kind, folder = request.param
    if request.param not in _opened:
        _opened[kind, folder] = load(kind, folders[folder])
    return _opened[kind, folder]


def chosen(whole: str, rng: random.Random, most: int) -> list[str]:
    """Words, most of them cut out of the text, some a little changed, some of elsewhere."""
    words = []
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(whole) + 1)
        word = whole[at : at + rng.choice([1, 1, 2, 3, 5, 8, 20])]
        words.append(
            rng.choice([word, word, word, word[:-1] + "x", " " + word, "안녕", "😀", "\n"])
        )
    return [word for word in words if word] or ["."]


def expected(
    tokenizer: Tokenizer, ids: list[int], words: list[str], min_tokens: int = 0, before: str = ""
) -> str:
    """The text before the first word that is complete with the `min_tokens`th id or later."""
    decoder, text = tokenizer.stream_decoder(), ""
    if before:
        decoder.prime(tokenizer.encode(before))
    for number, token in enumerate(ids, start=1):
        old, text = len(text), text + decoder.push([token])
        if number < min_tokens:
            continue
        ends = range(old + 1, len(text) + 1)
        starts = [e - len(w) for w in words for e in ends if e >= len(w) and text[:e].endswith(w)]
        if starts:
            return text[: min(starts)]
    return text


def answered(
    tokenizer: Tokenizer,
    chunks: list[list[int]],
    matcher: StopMatcher,
    look: Callable[[str], None],
    before: str = "",
) -> str:
    """What a client sees in the end; `look` sees every state on the way."""
    decoder, text = tokenizer.stream_decoder(), ""
    if before:
        decoder.prime(tokenizer.encode(before))
    for chunk in chunks:
        text += decoder.push(matcher.push(chunk))
        if matcher.stopped:
            text = text[: len(text) - matcher.cut]
            look(text)
            return text
        look(text)
    return text + decoder.push(matcher.end())


def test_the_text_ends_before_the_stop_string_and_none_of_it_is_seen(tokenizer: Tokenizer) -> None:
    @quick
    @given(id_lists(tokenizer), st.randoms(use_true_random=False))
    def check(ids: list[int], rng: random.Random) -> None:
        whole = tokenizer.decode(ids)
        (word,) = chosen(whole, rng, 1)
        wanted = whole.split(word)[0]
        look = checker(wanted)
        matcher = StopMatcher(tokenizer, [word])
        assert answered(tokenizer, cut(ids, rng), matcher, look) == wanted
        assert matcher.stopped == (word in whole)

    check()


def test_of_several_words_the_one_complete_first_ends_the_text(tokenizer: Tokenizer) -> None:
    @quick
    @given(id_lists(tokenizer), st.integers(0, 12), st.randoms(use_true_random=False))
    def check(ids: list[int], min_tokens: int, rng: random.Random) -> None:
        words = chosen(tokenizer.decode(ids), rng, 5)
        wanted = expected(tokenizer, ids, words, min_tokens)
        look = checker(wanted)
        matcher = StopMatcher(tokenizer, words, min_tokens)
        assert answered(tokenizer, cut(ids, rng), matcher, look) == wanted

    check()


def test_an_answer_behind_its_prompt_is_cut_like_the_answer_alone(tokenizer: Tokenizer) -> None:
    before = "the quick brown"

    @quick
    @given(id_lists(tokenizer), st.randoms(use_true_random=False))
    def check(ids: list[int], rng: random.Random) -> None:
        words = chosen(tokenizer.decode(ids), rng, 3)
        wanted = expected(tokenizer, ids, words, before=before)
        matcher = StopMatcher(tokenizer, words, prompt=tokenizer.encode(before))
        look = checker(wanted)
        assert answered(tokenizer, cut(ids, rng), matcher, look, before) == wanted

    check()


def test_a_bad_word_hidden_by_special_tokens_ends_the_text_at_once(tokenizer: Tokenizer) -> None:
    silent = next((i for i in range(tokenizer.vocab_size) if not tokenizer.token_bytes(i)), None)
    if silent is None:  # a vocabulary whose every token has a text hides nothing
        assert all(tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size))
        return
    first, second = tokenizer.encode_fragment("the sl"), tokenizer.encode_fragment("eet falls")
    ids = [*first, silent, *second]
    whole = tokenizer.decode(ids)
    word = whole[len(tokenizer.decode(first)) - 2 :][:4]
    matcher = StopMatcher(tokenizer, [], min_tokens=50, bad_words=(word,))
    text = answered(tokenizer, [[token] for token in ids], matcher, checker(whole))
    assert text == whole[: whole.index(word)]
    assert matcher.stopped


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("before", "behind"), [(0, 0), (2, 0), (0, 2), (3, 4)])
def test_a_stop_word_of_text_and_special_tokens_ends_the_text_before_it(
    tokenizer: Tokenizer, skip: bool, before: int, behind: int
) -> None:
    if not tokenizer.special_tokens:
        pytest.skip("a vocabulary without special tokens")
    special, letters = list(tokenizer.special_tokens.items())[-1]
    first, second = tokenizer.encode_fragment("the sl"), tokenizer.encode_fragment("eet falls")
    start, ids = tokenizer.decode(first), [*first, special, *second]
    shown = tokenizer.decode(ids, skip_special_tokens=False)
    at = shown.index(letters.decode())
    assert shown[:at] == start
    word = shown[at - before : at + len(letters.decode()) + behind]
    for chunks in ([ids], [[token] for token in ids]):
        matcher = StopMatcher(tokenizer, [word], skip_special_tokens=skip)
        decoder, text = tokenizer.stream_decoder(skip), ""
        for chunk in chunks:
            text += decoder.push(matcher.push(chunk))
            if matcher.stopped:
                break
            assert start[: len(start) - before].startswith(text)
        assert matcher.stopped
        assert text[: len(text) - matcher.cut] == start[: len(start) - before]


def checker(wanted: str) -> Callable[[str], None]:
    """Fails where a text is shown that is not the beginning of what is wanted."""

    def look(text: str) -> None:
        assert wanted.startswith(text), (text, wanted)

    return look
