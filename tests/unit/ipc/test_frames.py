"""Messages of the step socket: the same however they are cut, and nothing else is taken."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.ipc.frames import MAX_BYTES, BadFrame, Frames, frame, step_address

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
