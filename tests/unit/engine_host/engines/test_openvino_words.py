"""Bad words with the OpenVINO engine: what is asked never appears, and nothing else changes."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.hypothesis_profiles import examples
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine
from trellis.engine_host.engines.openvino_words import MAX_LISTS, BadWords
from trellis.engine_host.engines.word_automaton import without
from trellis.engine_host.engines.words_grammar import MAX_BYTES, MAX_WORDS
from trellis.errors import RequestError
from trellis.guides.characters import ALL as TEXT
from trellis.guides.grammar import BLOCK, readable
from trellis.tokenizers import Tokenizer, load

PROMPTS = {
    "english": "The capital of France is",
    "korean": "안녕하세요 세계 😀. 안녕하세요 세계 😀. 안녕하세요 세계",
    "code": "def fibonacci(n):\n    ",
    "list": "1, 2, 3, 5, 8,",
}
HOT = {"sample": True, "temperature": 1.5}


class Made:
    """An engine and its tokenizer, asked in texts."""

    def __init__(self, engine: OpenVinoEngine, tokenizer: Tokenizer) -> None:
        self.engine, self.tokenizer = engine, tokenizer

    def ids(self, *asked: tuple[str, Sampling]) -> list[list[int]]:
        """The ids of each answer, all of them in one batch."""
        made: dict[int, list[int]] = {}
        for key, (prompt, sampling) in enumerate(asked, start=1):
            self.engine.refuse(sampling)
            self.engine.add(key, np.array(self.tokenizer.encode(prompt)), sampling)
            made[key] = []
        while self.engine.busy:
            for event in self.engine.step():
                assert not isinstance(event, Failure), event
                made[event.key] += event.ids
        return list(made.values())

    def texts(self, *asked: tuple[str, Sampling]) -> list[str]:
        return [self.tokenizer.decode(ids) for ids in self.ids(*asked)]


@pytest.fixture(scope="module")
def made(demo_engine: tuple[Path, Path]) -> Iterator[Made]:
    folder, tokenizer = demo_engine
    engine = OpenVinoEngine(
        EngineSettings(
            folder,
            max_batch_size=16,
            max_tokens_in_paged_kv_cache=4096,
            enable_kv_cache_reuse=False,
        )
    )
    yield Made(engine, load("gpt2", tokenizer))
    engine.close()


def greedy(*words: str, **fields: object) -> Sampling:
    asked = Sampling(max_tokens=24, end_id=2, bad_words=words)
    return replace(asked, **fields)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("english", ["Paris"]),
        ("english", ["ari"]),  # inside a token, and across two
        ("english", [" Paris", "\n", "s is"]),
        ("english", ["e", " "]),
        ("korean", ["안", "세계", "😀"]),
        ("korean", ["안녕하세요 세계 😀"]),
        ("code", ["if n", ":\n", '"', "\\", "]", "'", "\t", "\r", "\x01"]),
        ("list", ["1", ", "]),
        ("code", ["        r"]),  # after nine spaces: begins inside its own beginning
        ("list", ["5, 6", "6, 7", "8, 13, 20"]),  # begin inside each other's
        ("korean", ["세계 😀. 안", "😀. 세", "계 안"]),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"end_id": -1}, {"log_probs": True}, HOT | {"seed": 3}])
def test_bad_words_never_appear(
    made: Made, prompt: str, words: list[str], fields: dict[str, object]
) -> None:
    (text,) = made.texts((PROMPTS[prompt], greedy(*words, **fields)))
    assert text
    assert not [word for word in words if word in text]


@pytest.mark.slow
@pytest.mark.parametrize("end_id", [2, -1, 0])
def test_they_never_appear_in_the_hottest_of_texts(made: Made, end_id: int) -> None:
    letters = "etaoinshrdlu"
    asked = [
        greedy(*letters, end_id=end_id, sample=True, temperature=3.0, seed=seed, max_tokens=48)
        for seed in range(8)
    ]
    texts = made.texts(*((PROMPTS["english"], each) for each in asked))
    assert not set("".join(texts)) & set(letters)
    assert sum(map(len, texts)) > 100


cut = st.tuples(st.integers(0, 80), st.integers(1, 9))
other = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufffd"), min_size=1, max_size=5)
suppress = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@pytest.mark.slow
@settings(max_examples=examples(15), suppress_health_check=suppress)
@given(
    st.sampled_from(sorted(PROMPTS)),
    st.lists(cut, max_size=3),
    st.lists(other, max_size=3),
)
@example("code", [(20, 9)], [])  # "        r", of which nine spaces begin two
@example("korean", [(4, 9)], [])
def test_the_text_is_the_free_one_up_to_the_token_that_would_complete_a_word(
    made: Made,
    prompt: str,
    cuts: list[tuple[int, int]],
    others: list[str],
) -> None:
    (ids,) = made.ids((PROMPTS[prompt], greedy()))
    whole = made.tokenizer.decode(ids)
    words = [whole[at : at + size] for at, size in cuts] + others
    words = [word for word in words if word and "\ufffd" not in word]
    if not words:
        return
    (found,) = made.ids((PROMPTS[prompt], greedy(*words)))
    kept = next(
        n - 1
        for n in range(1, len(ids) + 2)
        if n > len(ids) or any(word in made.tokenizer.decode(ids[:n]) for word in words)
    )
    text = made.tokenizer.decode(found)
    assert not [word for word in words if word in text]
    assert found[:kept] == ids[:kept]
    if kept == len(ids):
        assert found == ids
    else:
        assert found[kept : kept + 1] != ids[kept : kept + 1]


@pytest.mark.slow
def test_neighbours_in_the_batch_notice_nothing(made: Made) -> None:
    def batch(*words: str) -> list[list[int]]:
        return made.ids(
            (PROMPTS["list"], greedy(max_tokens=32, end_id=-1)),
            (PROMPTS["english"], greedy(*words, max_tokens=32, end_id=2, min_tokens=32)),
            (PROMPTS["code"], greedy(max_tokens=32, end_id=-1, sample=True, top_k=20, seed=5)),
            (PROMPTS["korean"], greedy("하", max_tokens=32, end_id=2, min_tokens=32)),
        )

    free, idle, busy = batch(), batch("zzzz", "qqq"), batch("Paris", " the")
    assert idle == free
    assert busy[1] != free[1]
    assert [busy[0], busy[2], busy[3]] == [free[0], free[2], free[3]]


@pytest.mark.slow
@pytest.mark.parametrize("word", ["엉", "각", "啊啊", "é", "🙏", "\ud7ff", "\U0010ffff"])
def test_words_beside_those_of_the_text_change_nothing(made: Made, word: str) -> None:
    asked = (PROMPTS["korean"], greedy())
    assert made.ids((PROMPTS["korean"], greedy(word))) == made.ids(asked)


character = st.integers(TEXT[0][0], TEXT[1][1])


@settings(max_examples=examples(500))
@given(character, character)
def test_ranges_are_whole_blocks_or_end_where_they_began(one: int, other: int) -> None:
    first, last = sorted((one, other))
    ranges = readable(first, last)
    assert [ranges[0][0], ranges[-1][1]] == [first, last]
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(ranges))
    for begin, end in ranges:
        assert begin <= end
        assert begin // BLOCK == end // BLOCK or end % BLOCK == BLOCK - 1


@pytest.mark.slow
def test_where_nothing_ends_a_text_the_end_token_is_no_way_around_the_words(made: Made) -> None:
    free = made.ids((PROMPTS["english"], greedy(end_id=-1, max_tokens=60)))[0]
    after = made.tokenizer.decode(free[free.index(2) + 1 :]).split()
    word = next(word for word in after if len(word) > 4)
    (text,) = made.texts((PROMPTS["english"], greedy(word, end_id=-1, max_tokens=60)))
    assert word not in text


letters = st.text("aab😀", max_size=14)


@settings(max_examples=examples(500))
@given(st.lists(st.text("aab😀", min_size=1, max_size=5), min_size=1, max_size=5), letters)
@example(["aab"], "aaab")
@example(["abac", "bad"], "abad")
@example(["a", "aab"], "b")
def test_the_automaton_lets_pass_what_has_no_word_and_nothing_else(
    words: list[str], text: str
) -> None:
    states, state = without(words), 0
    for end, character in enumerate(text, start=1):
        after = states[state].get(character, 0)
        if any(word in text[:end] for word in words):
            assert after is None
            return
        assert after is not None
        state = after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ab"] * (MAX_WORDS + 1), f"bad_words: {MAX_WORDS + 1} words"),
        (["가" * MAX_BYTES], f"bad_words: {3 * MAX_BYTES} bytes"),
        (["a\0b"], "bad_words: .* holds U\\+0000"),
        (["\ufffd"], "bad_words: .* holds U\\+FFFD"),
    ],
)
def test_what_cannot_be_kept_out_is_refused_by_name(
    made: Made, words: list[str], message: str
) -> None:
    with pytest.raises(RequestError, match=rf"^{message}"):
        made.engine.refuse(greedy(*words))


@pytest.mark.slow
def test_the_longest_lists_that_are_taken_work(made: Made) -> None:
    letters = random.Random(4)
    size = MAX_BYTES // MAX_WORDS
    many = ["".join(letters.choices("abcdefghij ", k=size)) for _ in range(MAX_WORDS)]
    for words in (many, ["".join(letters.choices("xyz ", k=MAX_BYTES))], ["a" * MAX_BYTES]):
        assert made.texts((PROMPTS["english"], greedy(*words))) == made.texts(
            (PROMPTS["english"], greedy())
        )


def test_lists_beyond_what_is_kept_are_refused_and_known_ones_go_on() -> None:
    lists = BadWords()
    for number in range(MAX_LISTS):
        lists.refuse((f"w{number}", "x"))
        lists.grammar((f"w{number}", "x"), ends=True)
    lists.refuse(("x", "w0"))
    with pytest.raises(RequestError, match=r"^bad_words: this engine"):
        lists.refuse(("new",))


@pytest.mark.slow
def test_several_sequences_are_refused_with_bad_words(made: Made) -> None:
    with pytest.raises(RequestError, match=r"^num_return_sequences: "):
        made.engine.refuse(greedy("x", num_return_sequences=2, **HOT))
