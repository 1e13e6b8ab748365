"""Keys repeat nowhere, cannot be guessed, and leave room for the sequences of a prompt."""

from itertools import pairwise

from trellis.ipc.stream_keys import SEQUENCE_BITS, StreamKeys


def test_keys_are_unique_and_spaced() -> None:
    keys = StreamKeys()
    taken = [int(key) for rows in (1, 5, 64) for key in keys.take(rows).reshape(-1)]
    assert len({key >> SEQUENCE_BITS for key in taken}) == 70
    assert all(key % (1 << SEQUENCE_BITS) == 0 for key in taken)


def test_a_key_says_nothing_of_the_next() -> None:
    """Of a thousand steps from one key to the next no two are the same, and each bit is used."""
    keys = [int(key) >> SEQUENCE_BITS for key in StreamKeys().take(1001).reshape(-1)]
    steps = [after - before for before, after in pairwise(keys)]
    assert len(set(steps)) == 1000
    for bit in range(64 - SEQUENCE_BITS):
        assert 350 < sum(key >> bit & 1 for key in keys) < 650
