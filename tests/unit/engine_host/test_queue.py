"""The line before the engine: first come first served, bounded in length and in time."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.engine_host.queue import Overloaded, RequestQueue


class Prompt(NamedTuple):
    answer: object
    row: int


def request(name: object, prompts: int = 1) -> list[Prompt]:
    return [Prompt(name, row) for row in range(prompts)]


def test_first_come_is_first_served_and_only_where_there_is_a_place() -> None:
    line: RequestQueue[Prompt] = RequestQueue(places=2, most=10)
    for name in "abc":
        line.put(request(name), running=2)
    assert line.take(running=2) == []
    assert [line.take(running=1)[0].answer for _ in range(3)] == ["a", "b", "c"]
    assert line.take(running=0) == []


def test_what_finds_no_room_is_refused_and_says_what_to_do() -> None:
    line: RequestQueue[Prompt] = RequestQueue(places=4, most=3)
    line.put(request("fits", 6), running=0)  # four places and two that wait
    line.put(request("last"), running=0)
    with pytest.raises(Overloaded, match=r"max_queue_size: 3\); send the request again later"):
        line.put(request("too many"), running=0)
    assert len(line) == 7


def test_rows_of_a_request_are_never_parted() -> None:
    line: RequestQueue[Prompt] = RequestQueue(places=4, most=100)
    line.put(request("a", 5), running=0)
    assert len(line.take(running=3)) == 5


def test_who_waits_too_long_is_taken_out_once() -> None:
    now = [0.0]
    line: RequestQueue[Prompt] = RequestQueue(1, 10, seconds=5, clock=lambda: now[0])
    line.put(request("early", 2), running=1)
    now[0] = 4.0
    line.put(request("late"), running=1)
    assert line.expired() == []
    now[0] = 6.0
    assert [prompt.answer for prompt in line.expired()] == ["early"]
    assert line.expired() == []
    assert len(line) == 1
    assert "waited 5 s" in str(line.expiry())


def test_no_bounds_take_everything_for_ever() -> None:
    now = [0.0]
    line: RequestQueue[Prompt] = RequestQueue(1, clock=lambda: now[0])
    for name in range(1000):
        line.put(request(name), running=1)
    now[0] = 1e9
    assert line.expired() == []
    assert len(line) == 1000


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "remove"]), st.integers(1, 5))))
def test_its_length_is_that_of_the_requests_in_it_and_within_bounds(
    steps: list[tuple[str, int]],
) -> None:
    line: RequestQueue[Prompt] = RequestQueue(places=3, most=4)
    names = iter(range(1000))
    waiting: dict[object, int] = {}
    for step, number in steps:
        if step == "put":
            name = next(names)
            try:
                line.put(request(name, number), running=3)
                waiting[name] = number
            except Overloaded:
                assert sum(waiting.values()) + number > 4
        elif step == "take":
            for prompt in line.take(running=2)[:1]:
                assert prompt.answer == next(iter(waiting))
                del waiting[prompt.answer]
        else:
            line.remove(number)
            waiting.pop(number, None)
        assert len(line) == sum(waiting.values()) <= 4
        assert [prompt.answer for prompt in line.waiting()] == list(waiting)
