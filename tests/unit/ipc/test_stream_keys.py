"""Keys never repeat, and leave room for the sequences of a prompt."""

from trellis.ipc.stream_keys import SEQUENCE_BITS, StreamKeys


def test_keys_are_unique_and_spaced() -> None:
    keys = StreamKeys()
    taken = [int(key) for rows in (1, 5, 64) for key in keys.take(rows).reshape(-1)]
    assert len({key >> SEQUENCE_BITS for key in taken}) == 70
    assert all(key % (1 << SEQUENCE_BITS) == 0 for key in taken)


def test_two_processes_start_apart() -> None:
    assert StreamKeys().take(1) != StreamKeys().take(1)
