"""Streams: chunks that, joined, are the whole text, and never end inside a character."""

from concurrent.futures import ThreadPoolExecutor

import httpx

from support.asking import KOREAN, ask, stream

REPEAT = f"{KOREAN}\n" * 4  # which the demo model goes on repeating


def test_a_stream_says_what_the_whole_answer_says(http: httpx.Client) -> None:
    whole = ask(http, REPEAT, max_tokens=60)["text_output"]
    chunks = list(stream(http, REPEAT, max_tokens=60))
    assert len(chunks) > 5
    assert all(chunk.decode("utf-8", "strict") is not None for chunk in chunks)
    assert b"".join(chunks).decode() == whole
    assert whole.startswith(KOREAN)


def test_thirty_two_streams_at_once_keep_every_character(http: httpx.Client) -> None:
    # What follows a prompt may depend on the batch it runs in: the repeated line does not.
    with ThreadPoolExecutor(32) as pool:
        streams = pool.map(lambda _: list(stream(http, REPEAT, max_tokens=40)), range(32))
        for chunks in streams:
            assert len(chunks) > 1
            assert "".join(chunk.decode("utf-8", "strict") for chunk in chunks).startswith(KOREAN)


def test_streams_in_many_scripts_equal_their_whole_answers(http: httpx.Client) -> None:
    for prompt in ("日本語の文章を", "Привет, как", "שלום", "สวัสดี", "👩‍👩‍👧 🏳️‍🌈 👍🏽", "हिन्दी में"):
        for sampling in ({}, {"temperature": 1.8, "top_k": 500, "seed": 5}):
            whole = ask(http, prompt, max_tokens=50, **sampling)["text_output"]
            chunks = list(stream(http, prompt, max_tokens=50, **sampling))
            assert b"".join(chunks).decode() == whole


def test_a_stream_never_shows_a_part_of_its_stop_word(http: httpx.Client) -> None:
    whole = ask(http, "The capital of France is", max_tokens=40)["text_output"]
    word = whole[10:18]
    chunks = list(stream(http, "The capital of France is", max_tokens=40, stop_words=[word]))
    assert b"".join(chunks).decode() == whole[: whole.index(word)]


def test_a_stream_that_is_not_asked_to_stream_is_one_chunk(http: httpx.Client) -> None:
    body = {"text_input": "Once upon a time", "max_tokens": 10}
    with http.stream("POST", "/v2/models/ensemble/generate_stream", json=body) as response:
        assert response.read().count(b"data:") == 1


def test_a_stream_has_new_text_alone_also_with_the_prompt_asked_for(http: httpx.Client) -> None:
    # What NVIDIA's end_to_end_grpc_client.py sends, and expects of a stream.
    whole = ask(http, "The capital of France is", max_tokens=8)["text_output"]
    values = {"max_tokens": 8, "exclude_input_in_output": False}
    assert b"".join(stream(http, "The capital of France is", **values)).decode() == whole
    prompted = ask(http, "The capital of France is", **values)["text_output"]
    assert prompted == f"The capital of France is{whole}"
