"""Limits of a key: what is taken, given back, and when there is more."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trellis.gateway.access.accounts import UNBOUNDED, Account, Bucket
from trellis.gateway.access.key_file import KeyLimits
from trellis.gateway.prepared import tokens_asked
from trellis.gateway.refusals import Refusal


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refused(work: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as raised:
        work()
    return raised.value


def begin(account: Account) -> None:
    with account.request():
        pass


def test_requests_a_minute_come_back_evenly() -> None:
    clock = Clock()
    account = Account("a", KeyLimits(requests_per_minute=6), clock)
    for _ in range(6):
        begin(account)
    refusal = refused(lambda: begin(account))
    assert (refusal.status, refusal.retry_after, refusal.code) == (429, 10, "rate_limit_exceeded")
    assert "6 requests a minute (requests_per_minute); try again in 10 s" in refusal.message
    clock.now += 10
    begin(account)
    assert refused(lambda: begin(account)).retry_after == 10


def test_requests_in_flight_end() -> None:
    account = Account("a", KeyLimits(requests_in_flight=1))
    with account.request():
        assert "1 requests in flight" in refused(lambda: begin(account)).message
    begin(account)
    assert account.requests == 0


def test_tokens_in_flight_are_free_again_at_the_end() -> None:
    account = Account("a", KeyLimits(tokens_in_flight=10))
    with account.request() as first, account.request() as second:
        first.reserve(8)
        assert refused(lambda: second.reserve(3)).status == 429
        second.reserve(2)
        first.settle(5)
        assert account.tokens == 7
    assert account.tokens == 0


def test_what_could_never_be_is_no_429() -> None:
    account = Account("a", KeyLimits(tokens_per_minute=10))
    with account.request() as request:
        refusal = refused(lambda: request.reserve(11))
    assert refusal.status == 400
    assert refusal.message.startswith("max_tokens: the request may take 11 tokens")


def test_tokens_that_were_not_made_are_given_back() -> None:
    clock = Clock()
    account = Account("a", KeyLimits(tokens_per_minute=60), clock)
    for _ in range(5):
        with account.request() as request:
            request.reserve(50)
            request.settle(2)
    with account.request() as request:
        request.reserve(50)
        assert refused(lambda: request.reserve(50)).retry_after == 50


def test_other_limits_leave_what_is_in_flight() -> None:
    account = Account("a", KeyLimits(requests_in_flight=2, requests_per_minute=2))
    with account.request():
        account.change(KeyLimits(requests_in_flight=1, requests_per_minute=9))
        assert "1 requests in flight" in refused(lambda: begin(account)).message
    begin(account)


def test_without_a_key_nothing_is_counted() -> None:
    UNBOUNDED.reserve(1 << 60)
    UNBOUNDED.settle(0)
    UNBOUNDED.end()


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 90), st.integers(0, 1000)), max_size=40),
)
def test_no_more_than_two_minutes_worth_passes_in_any_minute(
    rate: int, asked: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    taken: list[tuple[float, int]] = []
    for seconds, amount in asked:
        clock.now += seconds
        if amount <= rate and not bucket.wait(amount):
            bucket.take(amount)
            taken.append((clock.now, amount))
    for start, _ in taken:
        within = sum(amount for at, amount in taken if start <= at <= start + 60)
        assert within <= 2 * rate + 1


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_after_the_wait_there_is_enough(rate: int, amount: int) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock)
    bucket.take(rate)
    amount = min(amount, rate)
    clock.now += bucket.wait(amount) + 1e-6
    assert not bucket.wait(amount)


@given(
    st.one_of(st.integers(-(2**31), 2**31 - 1), st.lists(st.integers(-(2**31), 2**31 - 1))),
    *[st.one_of(st.integers(-9, 9), st.lists(st.integers(-9, 9)))] * 2,
    st.integers(0, 100),
)
def test_no_request_makes_room_for_another(
    most: int | list[int], sequences: int | list[int], beams: int | list[int], size: int
) -> None:
    """Whatever is in fields that nothing but their types was checked of."""
    values = {"max_tokens": most, "num_return_sequences": sequences, "beam_width": beams}
    tokens = tokens_asked(values, size)
    assert tokens >= 0
    account = Account("a", KeyLimits(tokens_per_minute=90), lambda: 0.0)
    account.reserve(90)
    if tokens:
        refused(lambda: account.reserve(tokens))
    assert refused(lambda: account.reserve(1)).status == 429


def test_fewer_tokens_than_none_are_a_fault_of_ours() -> None:
    account = Account("a", KeyLimits(tokens_per_minute=90))
    with pytest.raises(ValueError, match="-1 tokens"):
        account.reserve(-1)
    assert account.tokens == 0


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (KeyLimits(), 0),
        (KeyLimits(tokens_in_flight=5), 5),
        (KeyLimits(tokens_in_flight=9, tokens_per_minute=7), 7),
        (KeyLimits(requests_per_minute=1), 0),
    ],
)
def test_the_most_that_one_request_may_take_does_not_change_with_what_others_took(
    limits: KeyLimits, most: int
) -> None:
    account = Account("a", limits)
    with account.request() as allowance:
        allowance.reserve(4)
        assert allowance.most == most
    assert UNBOUNDED.most == 0
