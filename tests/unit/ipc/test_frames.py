"""Messages of the step socket: the same however they are cut, and nothing else is taken."""

import json
import struct
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trellis.ipc import frames as wire
from trellis.ipc.frames import (
    EVENTS_BYTES,
    MAX_BYTES,
    BadFrame,
    Frames,
    event_frames,
    frame,
    step_address,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
MESSAGES = st.lists(st.lists(VALUES, min_size=1, max_size=4), max_size=5)


@given(MESSAGES, st.data())
def test_messages_do_not_depend_on_the_pieces(
    messages: list[list[object]], data: st.DataObject
) -> None:
    sent = b"".join(frame(*message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    frames, got = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        got += frames.feed(sent[start:end])
    assert got == messages


@pytest.mark.parametrize("text", [b"{}", b"7", b"[]", b"[", b"\xff", b""])
def test_what_is_no_message_is_not_taken(text: bytes) -> None:
    with pytest.raises(BadFrame):
        Frames().feed(struct.pack(">I", len(text)) + text)


def test_a_length_beyond_the_bound_is_not_waited_for() -> None:
    with pytest.raises(BadFrame, match=f"{MAX_BYTES + 1} bytes"):
        Frames().feed(struct.pack(">I", MAX_BYTES + 1))


def test_two_models_and_two_servers_have_addresses_of_their_own() -> None:
    addresses = {step_address(model, pid) for model in ("a", "b" * 300) for pid in (1, 2)}
    assert len(addresses) == 4
    assert all(len(address) <= 107 for address in addresses)
    assert json.dumps([1]) == frame(1)[4:].decode()


def ended(number: int, tokens: int, top: int = 20) -> list[Any]:
    """The event of a whole answer with the likeliest tokens' log probabilities."""
    tops = [[[128_000 + at, -10.123456789012345] for at in range(top)]] * tokens
    return [number, [number] * tokens, True, 0, {"top_log_probs": tops}]


SIZES = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 20)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=15)
@given(SIZES)
def test_much_of_a_step_is_sent_in_parts(sizes: list[tuple[int, int]]) -> None:
    events = [ended(number, *size) for number, size in enumerate(sizes)]
    made, too_large = event_frames(events)
    messages = Frames().feed(b"".join(made))
    assert {kind for kind, _ in messages} == {"events"}
    assert [event for _, part in messages for event in part] == events
    assert too_large == []
    for data, (_, part) in zip(made, messages, strict=True):
        assert len(part) == 1 or len(data) <= EVENTS_BYTES + 64


def test_a_step_s_ids_are_one_message() -> None:
    events = [[number, [number]] for number in range(256)]
    assert event_frames(events) == ([frame("events", events)], [])


def test_an_event_that_is_too_large_ends_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 1 << 20)
    small, large = ended(1, 5), ended(2, 3000)
    made, too_large = event_frames([small, large])
    assert too_large == [2]
    ((_, events),) = Frames().feed(b"".join(made))
    assert events[0] == small
    number, message, code = events[1]
    assert (number, code) == (2, "INVALID_ARG")
    assert message.startswith("max_tokens: an answer of ")
    assert "(top_logprobs), or for a stream" in message


def test_a_large_message_is_not_copied_for_each_of_its_pieces() -> None:
    sent, piece = frame("x" * (32 << 20)), 64 << 10
    started = time.process_time()
    bytes(bytearray(sent))
    copying = time.process_time() - started
    frames, started = Frames(), time.process_time()
    for at in range(0, len(sent) - piece, piece):
        assert frames.feed(sent[at : at + piece]) == []
    assert time.process_time() - started < 0.2 + 10 * copying  # one for each piece is 256
