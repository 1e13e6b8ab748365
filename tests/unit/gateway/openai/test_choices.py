"""From events to the pieces of an answer: joined pieces are the whole, however events fall."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.byte_tokenizer import ByteTokenizer
from trellis.gateway.openai.choices import Choice, Piece, Usage, as_json, token_text
from trellis.gateway.openai.engine_events import StepEvents, TritonEvents, finish_reason
from trellis.ipc.stream_announcements import CountedPrompt
from trellis.pipeline.decode import Detokenizer
from trellis.pipeline.stop_strings import StopMatcher

TOKENIZER = ByteTokenizer()
TEXTS = Detokenizer.of(TOKENIZER)
WHOLE = "안녕 🙂 naïve".encode()


def choice(log_probs: bool = False) -> Choice:
    return Choice(0, TEXTS.sequence(), TOKENIZER, [1, 2, 3], log_probs)


def cut(data: bytes, places: list[int]) -> list[list[int]]:
    """The bytes as ids, in pieces."""
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    return [list(data[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


def read(made: Choice, events: list[list[Any]]) -> Piece:
    """All pieces, joined."""
    joined = Piece()
    for event in events:
        piece = made.read(event)
        joined.text += piece.text
        joined.log_probs += piece.log_probs
        joined.finish = joined.finish or piece.finish
    return joined


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_joined_pieces_are_the_whole(places: list[int]) -> None:
    *pieces, last = cut(WHOLE, places)
    events: list[list[Any]] = [[1, ids] for ids in pieces]
    events.append([1, last, True, 0, {"finish_reason": "length", "total_tokens": 99}])
    made = choice()
    joined = read(made, events)
    assert (joined.text, joined.finish) == (WHOLE.decode(), "length")
    assert made.completion == 99


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8), st.integers(0, 4))
def test_each_token_has_its_log_probability_and_its_place(places: list[int], early: int) -> None:
    """Log probabilities may come before the ids that they are of: those wait for a stop word."""
    pieces = cut(WHOLE, places)
    log_probs = [-float(at) for at in range(len(WHOLE))]
    events, told, seen = [], 0, 0
    for at, ids in enumerate(pieces):
        seen += len(ids)
        upto = len(WHOLE) if at == len(pieces) - 1 else min(seen + early, len(WHOLE))
        outputs = {"output_log_probs": log_probs[told:upto]}
        told = upto
        events.append([1, ids, at == len(pieces) - 1, 0, outputs])
    joined = read(choice(log_probs=True), events)
    assert [each.token for each in joined.log_probs] == list(WHOLE)
    assert [each.log_prob for each in joined.log_probs] == log_probs
    assert joined.text == WHOLE.decode()
    offsets = [each.offset for each in joined.log_probs]
    assert offsets == sorted(offsets)
    assert offsets[-1] == len(joined.text) - 1


def test_the_prompt_s_log_probabilities_and_the_likeliest_tokens() -> None:
    made = choice(log_probs=True)
    outputs = {
        "prompt_log_probs": [None, [-1.0, []], [-2.0, [[65, -0.5]]]],
        "output_log_probs": [-0.25],
        "top_log_probs": [[[66, -0.25], [67, -3.0]]],
    }
    piece = made.read([1, [66], True, 0, outputs])
    assert [each.log_prob for each in made.prompt_log_probs] == [None, -1.0, -2.0]
    assert made.prompt_log_probs[2].top == [(65, -0.5)]
    shown = as_json(made, piece.log_probs[0])
    assert shown["token"] == "B"
    assert [each["token"] for each in shown["top_logprobs"]] == ["B", "C"]


def test_a_stop_word_s_part_of_the_last_token_is_cut() -> None:
    for log_probs in (False, True):
        outputs = {"output_log_probs": [-1.0, -1.0]} if log_probs else {}
        piece = choice(log_probs).read([1, list(b"ab"), True, 1, outputs])
        assert (piece.text, piece.finish) == ("a", "stop")


def test_an_error_ends_a_sequence() -> None:
    assert choice().read([1, "the engine failed", "INTERNAL"]).error == (
        "the engine failed",
        "INTERNAL",
    )


def test_a_tokenizer_that_fails_is_this_answer_s_error() -> None:
    made = choice()
    assert made.read([1, ["x"]]).error is not None


def test_tokens_without_a_text() -> None:
    assert token_text(TOKENIZER, 10**6) == ("", b"")
    assert token_text(TOKENIZER, 0xE2) == ("\ufffd", b"\xe2")


def test_usage_says_what_was_cached_where_that_is_known() -> None:
    assert "prompt_tokens_details" not in Usage(3, 4).as_json()
    assert Usage(3, 4, 2).as_json()["prompt_tokens_details"] == {"cached_tokens": 2}


def triton(counted: CountedPrompt | None = None) -> TritonEvents:
    return TritonEvents("ensemble", TEXTS, "1f", counted)


def test_the_step_socket_s_events_are_what_they_are() -> None:
    reader = StepEvents()
    reader.begin(200, b"application/json")
    assert reader.read([1, [2]]) == [[1, [2]]]
    assert reader.end() == []


@given(st.lists(st.integers(0, 300), max_size=6))
def test_a_stream_of_triton_s_is_read_however_its_bytes_fall(places: list[int]) -> None:
    events = [
        {"output_ids": 5, "stream_end": False},
        {"output_ids": [6, 7], "stream_end": False, "output_log_probs": [-1.0, -2.0]},
        {"output_ids": [], "stream_end": True, "text_cut": 2, "finish_reason": "length"},
    ]
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    reader = triton()
    reader.begin(200, b"text/event-stream")
    made = []
    for piece in cut(data, places):
        made += reader.read(bytes(piece))
    assert made + reader.end() == [
        [0, [5], False, 0, {}],
        [0, [6, 7], False, 0, {"output_log_probs": [-1.0, -2.0]}],
        [0, [], True, 2, {"finish_reason": "length"}],
    ]


def test_a_whole_answer_of_the_cpp_backend_s_is_counted_here() -> None:
    reader = triton(CountedPrompt(tokens=2, in_front=2, max_tokens=3, ends=(9,)))
    reader.begin(200, b"application/json")
    assert reader.read(b'{"output_ids":[1,2,3,4,5]}') == []
    assert reader.end() == [[0, [3, 4, 5], True, 0, {"finish_reason": "length"}]]


def ended_at(data: bytes, stops: list[str], include: bool) -> tuple[str, int | None]:
    """The text up to the stop string that is complete first, and the tokens up to its end."""
    for tokens in range(1, len(data) + 1):
        text = data[:tokens].decode("utf-8", "ignore")
        found = min(((text.find(w), len(w)) for w in stops if w in text), default=None)
        if found is not None:
            return text[: found[0] + (found[1] if include else 0)], tokens
    return data.decode(), None


@given(
    st.lists(st.sampled_from("ab안🙂\n"), max_size=12).map("".join),
    st.lists(
        st.lists(st.sampled_from("ab안🙂\n"), min_size=1, max_size=3).map("".join),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.integers(0, 40), max_size=8),
    *[st.booleans()] * 3,
)
def test_an_answer_ends_at_a_stop_string_however_it_falls(
    text: str, stops: list[str], places: list[int], include: bool, log_probs: bool, whole: bool
) -> None:
    """Where the engine ends at tokens alone, and goes on, or leaves the string in the text."""
    matcher = StopMatcher(TOKENIZER, stops, include=include)
    reader = TritonEvents("ensemble", TEXTS, "1f", CountedPrompt(1, 0, 99, (999,)), matcher=matcher)
    made, data = choice(log_probs), text.encode()
    expected, tokens = ended_at(data, stops, include)
    if whole:
        reader.begin(200, b"application/json")
        answer = {"output_ids": list(data), "sequence_length": len(data)}
        reader.read(json.dumps(answer | _log_probs(log_probs, len(data))).encode())
        events = reader.end()
    else:
        reader.begin(200, b"text/event-stream")
        events = []
        for ids in cut(data, places):
            part = json.dumps({"output_ids": ids} | _log_probs(log_probs, len(ids)))
            events += reader.read(b"data: " + part.encode() + b"\n\n")
        if not reader.stopped:
            events += reader.end()
    joined = read(made, events)
    assert (joined.text, joined.finish, reader.stopped) == (expected, "stop", tokens is not None)
    assert [event[2] for event in events] == [False] * (len(events) - 1) + [True]
    assert made.completion >= (len(data) if tokens is None or whole else tokens)
    if log_probs:
        assert len(joined.log_probs) <= made.completion


def _log_probs(wanted: bool, count: int) -> dict[str, Any]:
    return {"output_log_probs": [-1.0] * count} if wanted else {}


def test_a_stream_of_the_cpp_backend_s_ends_with_its_body() -> None:
    reader = triton(CountedPrompt(tokens=2, in_front=0, max_tokens=3, ends=(9,)))
    reader.begin(200, b"text/event-stream")
    assert reader.read(b'data: {"output_ids":[3,9]}\n\n') == [[0, [3, 9], False, 0, {}]]
    assert reader.end() == [[0, [], True, 0, {"finish_reason": "stop"}]]


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "max_tokens: 9 is too many", "INVALID_ARG"),
        (400, "the server is overloaded: wait", "UNAVAILABLE"),
        (200, "the engine failed: x", "INTERNAL"),
        (500, "anything", "INTERNAL"),
    ],
)
def test_an_error_of_triton_s_has_its_code(status: int, message: str, code: str) -> None:
    reader = triton()
    reader.begin(status, b"application/json")
    reader.read(json.dumps({"error": message}).encode())
    assert reader.end() == [[0, message, code]]


def test_why_a_counted_answer_ended() -> None:
    counted = CountedPrompt(tokens=2, in_front=0, max_tokens=2, ends=(9,))
    assert [finish_reason(counted, ids) for ids in ([1], [1, 2], [1, 9])] == [
        "stop",
        "length",
        "stop",
    ]
