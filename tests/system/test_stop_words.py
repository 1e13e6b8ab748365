"""Stop words on a real server: over HTTP and gRPC, streamed and not, in rows and in sequences."""

from typing import Any

import httpx
import pytest
import tritonclient.grpc as triton

from support.asking import ask, chat, grpc_texts, stream
from trellis.grpc_client import generate
from trellis.server.process import Server

FACTS = "The capital of France is"
LINE = "안녕하세요 세계 😀 one two three."
PATTERN = f"{LINE}\n" * 6  # the model goes on with it, in whatever batch it runs
NONE = {"end_id": -1, "max_tokens": 40}


@pytest.fixture(scope="module")
def facts(http: httpx.Client) -> str:
    text: str = ask(http, FACTS, max_tokens=40)["text_output"]
    return text


@pytest.fixture(scope="module")
def pattern(http: httpx.Client) -> str:
    text: str = ask(http, PATTERN, **NONE)["text_output"]
    assert LINE in text
    return text


def before(text: str, *words: str) -> str:
    """The text before the first of the words to be complete."""
    ends = [(text.index(word) + len(word), text.index(word)) for word in words if word in text]
    return text[: min(ends)[1]] if ends else text


WORDS = [
    ["세계"],
    ["계 😀"],
    ["😀"],
    [" one"],
    ["e t"],
    ["hree."],
    ["\n"],
    ["안"],
    ["not there", "two three", "😀 one two"],
    ["안녕하세요 세계 😀 one two three.\n"],
]


@pytest.mark.parametrize("words", WORDS, ids=repr)
def test_the_text_ends_before_the_stop_word_whichever_way_it_comes(
    server: Server, http: httpx.Client, pattern: str, words: list[str]
) -> None:
    expected = before(pattern, *words)
    assert expected != pattern
    assert ask(http, PATTERN, stop_words=words, **NONE)["text_output"] == expected
    chunks = [chunk.decode() for chunk in stream(http, PATTERN, stop_words=words, **NONE)]
    shown = ""
    for chunk in chunks:
        shown += chunk
        assert expected.startswith(shown)  # nothing of the word, at no time
    assert shown == expected
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        values: dict[str, Any] = NONE | {"stop_words": words}
        assert grpc_texts(client, [PATTERN], **values).reshape(-1).tolist() == [expected]
        answers = generate(client, [PATTERN.encode()], values | {"stream": True})
        assert "".join(a["text_output"].item().decode() for a in answers) == expected


def test_every_place_of_a_text_can_end_it(http: httpx.Client, facts: str) -> None:
    for at in range(0, len(facts) - 3, 5):
        word = facts[at : at + 3]
        text = ask(http, FACTS, max_tokens=40, stop_words=[word])["text_output"]
        assert text == facts.split(word)[0]


def test_rows_of_a_batch_end_each_by_itself(server: Server) -> None:
    """The rows share the words; each has its own text."""
    things = ["apple", "river", "stone", "paper", "cloud"]
    prompts = [f"I have a {thing} 😀 and more.\n" * 8 for thing in things]
    values: dict[str, Any] = {"max_tokens": 24, "end_id": -1, "stop_words": ["stone", " 😀"]}
    expected = [f"I have a {thing}" if thing != "stone" else "I have a " for thing in things]
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        assert grpc_texts(client, prompts, **values).reshape(-1).tolist() == expected
        rows = [""] * len(prompts)
        encoded = [prompt.encode() for prompt in prompts]
        for answer in generate(client, encoded, values | {"stream": True}):
            rows[answer["batch_index"].item()] += answer["text_output"].item().decode()
    assert rows == expected


def test_sequences_of_one_prompt_end_each_by_itself(server: Server, http: httpx.Client) -> None:
    asked = {"num_return_sequences": 4, "temperature": 0.9, "seed": 3, "max_tokens": 40}
    free = ask(http, FACTS, **asked)["text_output"]
    words = [" the", "."]
    assert any(word in text for word in words for text in free)
    expected = [before(text, *words) for text in free]
    assert ask(http, FACTS, stop_words=words, **asked)["text_output"] == expected
    found = [""] * 4
    with triton.InferenceServerClient(f"localhost:{server.settings.grpc_port}") as client:
        values = asked | {"stop_words": words, "stream": True}
        for answer in generate(client, [FACTS.encode()], values):
            found[answer["sequence_index"].item()] += answer["text_output"].item().decode()
    assert found == expected


def test_a_stop_word_is_let_pass_before_min_tokens(http: httpx.Client) -> None:
    values = {"end_id": -1, "max_tokens": 70, "return_num_output_tokens": True}
    whole = ask(http, PATTERN, **values)["text_output"]
    first, second, *_ = whole.split("two")
    early = ask(http, PATTERN, stop_words=["two"], min_tokens=1, **values)
    assert early["text_output"] == first
    late = ask(
        http, PATTERN, stop_words=["two"], min_tokens=early["num_output_tokens"] + 1, **values
    )
    assert late["text_output"] == f"{first}two{second}"


def test_the_end_token_waits_for_min_tokens_and_so_do_stop_words(http: httpx.Client) -> None:
    prompt = chat("What is 1+1?")
    whole = ask(http, prompt, max_tokens=60, min_tokens=50)["text_output"]
    values = {"max_tokens": 60, "min_tokens": 50, "return_num_output_tokens": True}
    answer = ask(http, prompt, stop_words=[" "], **values)
    assert answer["num_output_tokens"] >= 50
    assert whole.startswith(answer["text_output"])


def test_a_prompt_that_holds_the_word_does_not_end_its_answer(http: httpx.Client) -> None:
    answer = ask(http, FACTS, stop_words=["France is"], max_tokens=8)["text_output"]
    assert answer == ask(http, FACTS, max_tokens=8)["text_output"]
    whole = ask(http, FACTS, stop_words=["France is"], max_tokens=8, exclude_input_in_output=False)[
        "text_output"
    ]
    assert whole == FACTS + answer
